"""The report's first picture: each model's figures with their intervals."""

import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib
from matplotlib import pyplot

from stages.lib.figures.comparison import Comparison
from stages.lib.figures.definitions import Estimate

SHOWN = ("perplexity", "accuracy", "rougeL")
COLOURS = {"original": "#4477aa", "pruned": "#cc6677"}
"""Of Tol's palette that colour-blind readers can tell apart; the other models are grey."""
OTHERS = "#666666"


def draw(comparisons: Sequence[Comparison], vocabulary: int, path: Path) -> None:
    """Write an SVG, the same bytes for the same figures: a row per model, a panel per figure.

    Perplexity is on a log scale, next to that of a uniform guess among `vocabulary` tokens.
    """
    # Without a salt and with a date, an SVG differs from run to run.
    matplotlib.rcParams.update({"svg.hashsalt": "cost", "font.size": 9})
    shown = [comparison for comparison in comparisons if comparison.figure.key in SHOWN]
    models = list(shown[0].estimates)
    figure, axes = pyplot.subplots(
        1, len(shown), figsize=(10, 1.2 + 0.28 * len(models)), layout="constrained", sharey=True
    )
    for axis, comparison in zip(axes, shown, strict=True):
        for row, (model, estimate) in enumerate(comparison.estimates.items()):
            axis.errorbar(
                estimate.value, row, xerr=_reach(estimate), fmt="o", capsize=3, color=COLOURS.get(model, OTHERS)
            )
        axis.set_title(f"{comparison.figure.name} ({comparison.figure.better} is better)", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
        if comparison.figure.key == "perplexity":
            axis.set_xscale("log")
            axis.axvline(vocabulary, color="#555555", linestyle=":", linewidth=1, label="uniform guess")
        if comparison.baseline is not None:
            axis.axvline(
                comparison.baseline, color="#555555", linestyle="--", linewidth=1, label=comparison.baseline_name
            )
    axes[0].set_yticks(range(len(models)), models)
    axes[0].invert_yaxis()
    for axis in axes:
        axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _reach(estimate: Estimate) -> list[list[float]] | None:
    """The reach of an interval below and above a value."""
    if estimate.interval is None:
        return None
    return [[max(0.0, estimate.value - estimate.interval.low)], [max(0.0, estimate.interval.high - estimate.value)]]
