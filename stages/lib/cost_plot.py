"""The picture of the report: each metric of both models with its interval."""

import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib
from matplotlib import pyplot

from stages.lib.comparison import Comparison
from stages.lib.statistics import Interval

SHOWN = ("perplexity", "accuracy", "ROUGE-L")
COLOURS = ("#4477aa", "#cc6677")
"""Of Tol's palette that colour-blind readers can tell apart."""


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write an SVG, the same bytes for the same figures."""
    # Without a salt and with a date, an SVG differs from run to run.
    matplotlib.rcParams.update({"svg.hashsalt": "cost", "font.size": 10})
    shown = [comparison for comparison in comparisons if comparison.name in SHOWN]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(9, 3.2), layout="constrained")
    for axis, comparison in zip(axes, shown, strict=True):
        values = (comparison.original, comparison.pruned)
        intervals = (comparison.original_interval, comparison.pruned_interval)
        reach = [_reach(value, interval) for value, interval in zip(values, intervals, strict=True)]
        bars = axis.bar(
            ("original", "pruned"), values, yerr=list(zip(*reach, strict=True)), capsize=5, color=COLOURS, width=0.6
        )
        axis.bar_label(bars, [f"{value:#.3g}" for value in values], label_type="center", color="white", weight="bold")
        axis.set_title(f"{comparison.name} ({comparison.better} is better)", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        if comparison.baseline is not None:
            axis.axhline(comparison.baseline, color="#555555", linestyle="--", linewidth=1)
            axis.plot([], [], color="#555555", linestyle="--", linewidth=1, label=comparison.baseline_name)
            axis.legend(fontsize=8, frameon=False, loc="upper right")
            axis.margins(y=0.2)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _reach(value: float, interval: Interval | None) -> tuple[float, float]:
    """How far an interval reaches below and above a value."""
    return (value - interval.low, interval.high - value) if interval else (0.0, 0.0)
