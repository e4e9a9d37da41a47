"""A model's figures in one line, for the screen."""

from collections.abc import Mapping


def summary_line(model: str, figures: Mapping[str, float]) -> str:
    """The line that the stage `measure` prints; the keys are those of the files under metrics/."""
    perplexity = figures["perplexity"]
    return (
        f"{model}: perplexity {perplexity:,.2f}" if perplexity < 1e6 else f"{model}: perplexity {perplexity:.2e}"
    ) + (
        f", accuracy {figures['accuracy']:.3f}, ROUGE-L {figures['rougeL']:.3f}, "
        f"{figures['effective_parameters'] / 1e6:.1f}M effective parameters, {figures['stored_bytes']:,.0f} bytes"
    )
