"""The report's text: the answer, one table, and what they rest on."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.lib.comparison import Comparison
from stages.lib.statistics import Interval

Counts = Mapping[str, Any]


def render(
    comparisons: Sequence[Comparison], counts: Counts, base_bytes: int, recipe_bytes: int, rests_on: Mapping[str, str]
) -> str:
    """The whole report as Markdown."""
    return "\n".join(
        [
            "# What did pruning cost?",
            "",
            _answer(comparisons, counts),
            "",
            *_table(comparisons, counts, base_bytes, recipe_bytes),
            "",
            "Brackets hold 95 % intervals: Wilson's for accuracy, otherwise a bootstrap over the items; those of a",
            "difference are paired, over the same items. ROUGE scores only what a model adds after document and cue.",
            "",
            "![Perplexity, accuracy and ROUGE-L of both models](cost.svg)",
            "",
            "## What this rests on",
            "",
            "| | |",
            "|---|---|",
            *[f"| {_escape(name)} | {_escape(value)} |" for name, value in rests_on.items()],
            "",
        ]
    )


def _answer(comparisons: Sequence[Comparison], counts: Counts) -> str:
    before = counts["total_parameters"] - counts["zeros_before"]
    found = {comparison.name: comparison for comparison in comparisons}
    perplexity, accuracy, rouge = found["perplexity"], found["accuracy"], found["ROUGE-L"]
    return (
        f"Setting {counts['sparsity']:.1%} of the prunable weights to zero takes the model from "
        f"{before / 1e6:.1f}M to {counts['effective_parameters'] / 1e6:.1f}M effective parameters. "
        f"Perplexity goes from {perplexity.original:.1f} to {perplexity.pruned:.1f} "
        f"(× {perplexity.pruned / perplexity.original:.2f}), accuracy from {accuracy.original:.3f} to "
        f"{accuracy.pruned:.3f}, ROUGE-L from {rouge.original:.3f} to {rouge.pruned:.3f}."
    )


def _table(comparisons: Sequence[Comparison], counts: Counts, base_bytes: int, recipe_bytes: int) -> list[str]:
    before = counts["total_parameters"] - counts["zeros_before"]
    after = counts["effective_parameters"]
    return [
        "| | original | pruned | difference | on |",
        "|---|---:|---:|---:|---|",
        f"| parameters | {counts['total_parameters']:,} | {counts['total_parameters']:,} | 0 | tied tensors once |",
        f"| effective parameters | {before:,} | {after:,} | {after - before:+,} | non-zero entries |",
        f"| stored, bytes | {base_bytes:,} | {recipe_bytes:,} | | the pruned model is a recipe over the original |",
        *[_row(comparison) for comparison in comparisons],
    ]


def _row(comparison: Comparison) -> str:
    arrow = "↓" if comparison.better == "lower" else "↑"
    places = 2 if comparison.original >= 10 else 3
    cells = [
        f"{comparison.name} {arrow}",
        _with_interval(comparison.original, comparison.original_interval, places),
        _with_interval(comparison.pruned, comparison.pruned_interval, places),
        _with_interval(comparison.difference, comparison.difference_interval, places, "+"),
        _on(comparison),
    ]
    return f"| {' | '.join(cells)} |"


def _on(comparison: Comparison) -> str:
    parts = [comparison.items]
    if comparison.baseline is not None:
        parts.append(f"{comparison.baseline_name} {comparison.baseline:.3f}")
    return "; ".join([*parts, comparison.note] if comparison.note else parts)


def _with_interval(value: float, interval: Interval | None, places: int, sign: str = "") -> str:
    form = f"{sign},.{places}f"
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
