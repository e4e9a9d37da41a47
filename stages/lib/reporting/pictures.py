"""The report's pictures, each for a screen and, with its panels stacked, for a telephone."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import fill
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatter

from stages.lib.figures.comparison import Change, Comparison
from stages.lib.figures.definitions import Estimate
from stages.lib.files.writing import new_file
from stages.lib.reporting.study import Results, Size
from stages.lib.reporting.wording import curve_name

SHOWN = ("perplexity", "accuracy", "rougeL")
OWN_COLOURS = {"original": "#4477aa", "pruned": "#cc6677"}
"""Of `PALETTE`; the other models are grey."""
OTHERS = "#666666"
PALETTE = ("#cc6677", "#4477aa", "#228833", "#aa8800", "#aa3377", "#66ccee", "#882255")
"""Of Tol's colours that colour-blind readers can tell apart."""
LARGEST_DRAWN = 1e200
"""An axis, with its margins and ticks, ends below the largest float."""
WORST_SHOWN = 1000
"""Perplexities above this many times the original's are drawn at the upper edge, as arrows."""
LINE = 0.045
"""The height of a name, as a share of a picture."""
SMALLEST_DRAWN = 1e-6
"""Of KL divergences, in nats: an axis with a logarithmic scale has no place for 0."""
WIDTH, NARROW_WIDTH = 10.0, 4.2
"""In inches: with 9 points, the smallest letters are 12 pixels at 960 and at 403 pixels."""
NARROW_CHARACTERS = 48
"""Of a line above or below a narrow picture."""


def draw(results: Results, alone: float, folder: Path, narrow: bool = False) -> dict[str, Path]:
    """Draw the pictures into a folder; their paths, by name. `alone` is the sparsity of each part alone."""
    pictures = {name: folder / f"{name}.svg" for name in ("cost", "distance", "frontier", "sensitivity")}
    perplexity, divergence = results.by_key["perplexity"], results.by_key["kl_divergence"]
    draw_cost(results.comparisons, results.vocabulary, pictures["cost"], narrow)
    draw_distance(perplexity, divergence, pictures["distance"], narrow)
    draw_frontier(results.frontier, perplexity, results.sizes, pictures["frontier"], narrow)
    draw_sensitivity(results.sensitivity, alone, pictures["sensitivity"], narrow)
    return pictures


@contextmanager
def _picture(
    path: Path, height: float, narrow: bool, panels: Sequence[float] = (1,), **options: Any
) -> Iterator[list[Axes]]:
    """Yield a picture's panels, of the given relative widths, and write it as an SVG.

    A narrow picture has its panels below each other, with letters of the same size. The same figures give the same
    bytes.
    """
    # Without a salt and with a date, an SVG differs from run to run.
    matplotlib.rcParams.update({"svg.hashsalt": path.stem, "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 9})
    if narrow:
        shape, size, ratios = (len(panels), 1), (NARROW_WIDTH, height * len(panels)), None
    else:
        shape, size, ratios = (1, len(panels)), (WIDTH, height), panels
    figure, grid = pyplot.subplots(
        *shape, figsize=size, width_ratios=ratios, layout="constrained", squeeze=False, **options
    )
    axes = list(grid.flat)
    yield axes
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        if narrow:
            axis.set_title(fill(axis.get_title(), NARROW_CHARACTERS))
            axis.set_xlabel(fill(axis.get_xlabel(), NARROW_CHARACTERS))
    with new_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def draw_cost(comparisons: Sequence[Comparison], vocabulary: int, path: Path, narrow: bool = False) -> None:
    """A row per model, a panel per figure; perplexity next to that of a uniform guess among `vocabulary` tokens."""
    shown = [comparison for comparison in comparisons if comparison.figure.key in SHOWN]
    models = list(shown[0].estimates)
    with _picture(path, 1.2 + 0.28 * len(models), narrow, [1] * len(shown), sharey=True) as axes:
        for axis, comparison in zip(axes, shown, strict=True):
            _panel(axis, comparison, vocabulary)
        axes[0].set_yticks(range(len(models)), models)
        axes[0].invert_yaxis()


def _panel(axis: Axes, comparison: Comparison, vocabulary: int) -> None:
    """All models' estimates of one figure, and that of a trivial method."""
    for row, (model, estimate) in enumerate(comparison.estimates.items()):
        colour = OWN_COLOURS.get(model, OTHERS)
        axis.errorbar(estimate.value, row, xerr=_reach(estimate), fmt="o", capsize=3, color=colour)
    axis.set_title(f"{comparison.figure.name} ({comparison.figure.better} is better)")
    axis.grid(axis="x", color="#dddddd")
    axis.set_axisbelow(True)
    if comparison.figure.key == "perplexity":
        axis.set_xscale("log")
        _label_plainly(axis.xaxis)
        axis.axvline(vocabulary, color="#555555", linestyle=":", linewidth=1, label="uniform guess")
    if comparison.baseline is not None:
        axis.axvline(comparison.baseline, color="#555555", linestyle="--", linewidth=1, label=comparison.baseline_name)
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _reach(estimate: Estimate | Change) -> list[list[float]] | None:
    """The reach of an interval below and above a value."""
    if estimate.interval is None:
        return None
    return [[max(0.0, estimate.value - estimate.interval.low)], [max(0.0, estimate.interval.high - estimate.value)]]


def draw_distance(perplexity: Comparison, divergence: Comparison, path: Path, narrow: bool = False) -> None:
    """Each model's perplexity by its KL divergence, and the curve on which a text of the original's would have them."""
    models = list(divergence.estimates)
    distances = [max(divergence.estimates[model].value, SMALLEST_DRAWN) for model in models]
    ratios = [min(perplexity.changes[model, "original"].value, LARGEST_DRAWN) for model in models]
    with _picture(path, 5, narrow) as (axis,):
        axis.scatter(distances, ratios, color=[OWN_COLOURS.get(model, OTHERS) for model in models], zorder=3)
        axis.set(
            xscale="log",
            yscale="log",
            xlabel="KL divergence from the original, nats per token (lower is better)",
            ylabel="perplexity / original's (lower is better)",
            title="Score and distance",
        )
        (left, right), limits = axis.get_xlim(), axis.get_ylim()
        curve = np.geomspace(left, right, 200)
        axis.plot(
            curve, np.exp(np.minimum(curve, np.log(LARGEST_DRAWN))), "--", color=OTHERS, label="exp(KL divergence)"
        )
        axis.set(xlim=(left, right), ylim=limits)
        for each in (axis.xaxis, axis.yaxis):
            _label_plainly(each)
        _name_points(axis, models, distances, ratios)
        axis.grid(color="#dddddd")
        axis.set_axisbelow(True)
        axis.legend(frameon=False, loc="best")


class _Plain(LogFormatter):
    """Writes 1e+06: the exponents of powers would be too small to read on a telephone."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def _label_plainly(axis: Axis) -> None:
    axis.set_major_formatter(_Plain())
    axis.set_minor_formatter(_Plain(labelOnlyBase=False))


def _name_points(axis: Axes, names: Sequence[str], x: Sequence[float], y: Sequence[float]) -> None:
    """The points' names at the right edge, in the order of their heights and apart, each with a line to its point."""
    order = np.argsort(y, kind="stable")
    heights = (axis.transScale + axis.transLimits).transform(np.column_stack([x, y]))[order, 1]
    steps = min(LINE, 1 / len(names)) * np.arange(len(names))
    places = np.minimum(np.maximum.accumulate(heights - steps), 1 - steps[-1]) + steps
    line = {"arrowstyle": "-", "color": "#999999", "linewidth": 0.7, "shrinkB": 3, "relpos": (0, 0.5)}
    for number, place in zip(order, places, strict=True):
        axis.annotate(names[number], (x[number], y[number]), (1.04, place), "data", "axes fraction", line, va="center")


def draw_frontier(
    frontier: pd.DataFrame, perplexity: Comparison, sizes: Mapping[str, Size], path: Path, narrow: bool = False
) -> None:
    """Each method's perplexity by effective parameters, and the models as points."""
    worst = min(WORST_SHOWN * perplexity.estimates["original"].value, LARGEST_DRAWN)
    colours = dict(zip(frontier["method"].unique(), PALETTE, strict=False))
    with _picture(path, 5, narrow) as (axis,):
        for (method, _), curve in frontier.groupby(["method", "recovery_steps"], sort=False):
            _curve(axis, curve.sort_values("effective_parameters"), worst, colours[method])
        millions = [sizes[model].effective_parameters / 1e6 for model in perplexity.estimates]
        heights = [min(estimate.value, worst) for estimate in perplexity.estimates.values()]
        for x, y in zip(millions, heights, strict=True):
            axis.plot(x, y, "^" if y == worst else "D", color="black", markersize=5)
        axis.set(
            yscale="log",
            xlabel="effective parameters, millions: non-zero entries, shared tensors once per block",
            ylabel="perplexity (lower is better)",
            title=f"What is lost at N parameters (▲: beyond {WORST_SHOWN:,} times the original's)",
        )
        axis.set(ylim=axis.get_ylim())
        _label_plainly(axis.yaxis)
        _name_points(axis, list(perplexity.estimates), millions, heights)
        axis.grid(color="#dddddd")
        axis.set_axisbelow(True)
        if not frontier.empty:
            axis.legend(frameon=False)


def _curve(axis: Axes, curve: pd.DataFrame, worst: float, colour: str) -> None:
    method, steps = str(curve["method"].iloc[0]), int(curve["recovery_steps"].iloc[0])
    millions = curve["effective_parameters"] / 1e6
    style, name = "o-" if steps else "o--", curve_name(method, steps)
    axis.plot(millions, curve["perplexity"].clip(upper=worst), style, color=colour, markersize=4, label=name)
    low, high = (curve[f"perplexity_{end}"].clip(upper=worst) for end in ("low", "high"))
    axis.fill_between(millions, low, high, color=colour, alpha=0.12)


def draw_sensitivity(tables: Mapping[str, pd.DataFrame], alone: float, path: Path, narrow: bool = False) -> None:
    """The three tables of sensitivity; `alone` is the sparsity at which each part was pruned alone."""
    sparsities, matrices, blocks = (tables[name] for name in ("sparsities", "matrices", "blocks"))
    with _picture(path, 3.2, narrow, (1, 1, 1.4)) as axes:
        axes[0].plot(sparsities["sparsity"], sparsities["ratio"], "o-", color=OWN_COLOURS["original"])
        low, high = (sparsities[f"ratio_{end}"].fillna(sparsities["ratio"]) for end in ("low", "high"))
        axes[0].fill_between(sparsities["sparsity"], low, high, color=OWN_COLOURS["original"], alpha=0.2)
        axes[0].set(yscale="log", xlabel="sparsity", ylabel="perplexity / unpruned", title="All matrices together")
        _label_plainly(axes[0].yaxis)
        _ratios(axes[1], matrices, [name.split(".")[-1] for name in matrices["matrix"]])
        axes[1].tick_params(axis="x", rotation=60)
        axes[1].set(title=f"Each kind of matrix alone, {alone:.0%}", ylabel="perplexity / unpruned")
        _ratios(axes[2], blocks, list(blocks["block"]))
        axes[2].set(title=f"Each block alone, {alone:.0%}", xlabel="block")


def _ratios(axis: Axes, table: pd.DataFrame, names: list[str]) -> None:
    below, above = table["ratio"] - table["ratio_low"], table["ratio_high"] - table["ratio"]
    axis.errorbar(
        names, table["ratio"], yerr=[below.clip(0), above.clip(0)], fmt="o", capsize=2, color=OWN_COLOURS["original"]
    )
    axis.axhline(1, color="#555555", linewidth=1, linestyle="--")
