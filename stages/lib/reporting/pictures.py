"""The report's pictures: the cost of each model, the frontier, and sensitivity."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from stages.lib.figures.comparison import Comparison
from stages.lib.figures.definitions import Estimate
from stages.lib.files.writing import new_file
from stages.lib.reporting.study import Results, Size
from stages.lib.reporting.wording import curve_name

SHOWN = ("perplexity", "accuracy", "rougeL")
OWN_COLOURS = {"original": "#4477aa", "pruned": "#cc6677"}
"""Of Tol's palette that colour-blind readers can tell apart; the other models are grey."""
OTHERS = "#666666"
PALETTE = ("#cc6677", "#4477aa", "#228833", "#aa8800", "#aa3377", "#66ccee", "#882255")
"""Of Tol's colours that colour-blind readers can tell apart."""
LARGEST_DRAWN = 1e300
"""An axis ends below the largest float."""
WORST_SHOWN = 1000
"""Perplexities above this many times the original's are drawn at the upper edge, as arrows."""


def draw(results: Results, alone: float, folder: Path) -> dict[str, Path]:
    """Draw the three pictures into a folder; their paths, by name. `alone` is the sparsity of each part alone."""
    pictures = {name: folder / f"{name}.svg" for name in ("cost", "frontier", "sensitivity")}
    draw_cost(results.comparisons, results.vocabulary, pictures["cost"])
    draw_frontier(results.frontier, results.by_key["perplexity"], results.sizes, pictures["frontier"])
    draw_sensitivity(results.sensitivity, alone, pictures["sensitivity"])
    return pictures


@contextmanager
def _picture(path: Path, height: float, panels: int = 1, **options: Any) -> Iterator[list[Axes]]:
    """Yield the panels of a picture, and write it as an SVG: the same bytes for the same figures."""
    # Without a salt and with a date, an SVG differs from run to run.
    matplotlib.rcParams.update({"svg.hashsalt": path.stem, "font.size": 9})
    figure, axes = pyplot.subplots(1, panels, figsize=(10, height), layout="constrained", squeeze=False, **options)
    yield list(axes[0])
    for axis in axes[0]:
        axis.spines[["top", "right"]].set_visible(False)
    with new_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def draw_cost(comparisons: Sequence[Comparison], vocabulary: int, path: Path) -> None:
    """A row per model, a panel per figure; perplexity next to that of a uniform guess among `vocabulary` tokens."""
    shown = [comparison for comparison in comparisons if comparison.figure.key in SHOWN]
    models = list(shown[0].estimates)
    with _picture(path, 1.2 + 0.28 * len(models), len(shown), sharey=True) as axes:
        for axis, comparison in zip(axes, shown, strict=True):
            _panel(axis, comparison, vocabulary)
        axes[0].set_yticks(range(len(models)), models)
        axes[0].invert_yaxis()


def _panel(axis: Axes, comparison: Comparison, vocabulary: int) -> None:
    """All models' estimates of one figure, and that of a trivial method."""
    for row, (model, estimate) in enumerate(comparison.estimates.items()):
        colour = OWN_COLOURS.get(model, OTHERS)
        axis.errorbar(estimate.value, row, xerr=_reach(estimate), fmt="o", capsize=3, color=colour)
    axis.set_title(f"{comparison.figure.name} ({comparison.figure.better} is better)", fontsize=10)
    axis.grid(axis="x", color="#dddddd")
    axis.set_axisbelow(True)
    if comparison.figure.key == "perplexity":
        axis.set_xscale("log")
        axis.axvline(vocabulary, color="#555555", linestyle=":", linewidth=1, label="uniform guess")
    if comparison.baseline is not None:
        axis.axvline(comparison.baseline, color="#555555", linestyle="--", linewidth=1, label=comparison.baseline_name)
    axis.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.08))


def _reach(estimate: Estimate) -> list[list[float]] | None:
    """The reach of an interval below and above a value."""
    if estimate.interval is None:
        return None
    return [[max(0.0, estimate.value - estimate.interval.low)], [max(0.0, estimate.interval.high - estimate.value)]]


def draw_frontier(frontier: pd.DataFrame, perplexity: Comparison, sizes: Mapping[str, Size], path: Path) -> None:
    """Each method's perplexity by effective parameters, and the models as points."""
    worst = min(WORST_SHOWN * perplexity.estimates["original"].value, LARGEST_DRAWN)
    colours = dict(zip(frontier["method"].unique(), PALETTE, strict=False))
    with _picture(path, 5) as (axis,):
        for (method, _), curve in frontier.groupby(["method", "recovery_steps"], sort=False):
            _curve(axis, curve.sort_values("effective_parameters"), worst, colours[method])
        for place, models in _places(perplexity, sizes, worst).items():
            axis.plot(*place, "^" if place[1] == worst else "D", color="black", markersize=5)
            below: dict[str, Any] = {"xytext": (2, -6), "textcoords": "offset points", "ha": "right", "va": "top"}
            axis.annotate("\n".join(models), place, **below, rotation=35, fontsize=8)
        axis.margins(x=0.11, y=0.22)  # room for the models' names, which hang below the curves
        axis.set(
            yscale="log",
            xlabel="effective parameters, millions: non-zero entries, shared tensors once per block",
            ylabel="perplexity (lower is better)",
            title=f"What is lost at N parameters (▲: beyond {WORST_SHOWN:,} times the original's)",
        )
        axis.grid(color="#dddddd")
        axis.set_axisbelow(True)
        if not frontier.empty:
            axis.legend(frameon=False, fontsize=8)


def _places(perplexity: Comparison, sizes: Mapping[str, Size], worst: float) -> dict[tuple[float, float], list[str]]:
    """The models by their place in the picture; those that would overlap share one."""
    places: dict[tuple[float, float], list[str]] = {}
    for model, estimate in perplexity.estimates.items():
        place = round(sizes[model].effective_parameters / 1e6), min(estimate.value, worst)
        places.setdefault(place, []).append(model)
    return places


def _curve(axis: Axes, curve: pd.DataFrame, worst: float, colour: str) -> None:
    method, steps = str(curve["method"].iloc[0]), int(curve["recovery_steps"].iloc[0])
    millions = curve["effective_parameters"] / 1e6
    style, name = "o-" if steps else "o--", curve_name(method, steps)
    axis.plot(millions, curve["perplexity"].clip(upper=worst), style, color=colour, markersize=4, label=name)
    low, high = (curve[f"perplexity_{end}"].clip(upper=worst) for end in ("low", "high"))
    axis.fill_between(millions, low, high, color=colour, alpha=0.12)


def draw_sensitivity(tables: Mapping[str, pd.DataFrame], alone: float, path: Path) -> None:
    """The three tables of sensitivity; `alone` is the sparsity at which each part was pruned alone."""
    sparsities, matrices, blocks = (tables[name] for name in ("sparsities", "matrices", "blocks"))
    with _picture(path, 3.2, 3, width_ratios=[1, 1, 1.4]) as axes:
        axes[0].plot(sparsities["sparsity"], sparsities["ratio"], "o-", color=OWN_COLOURS["original"])
        low, high = (sparsities[f"ratio_{end}"].fillna(sparsities["ratio"]) for end in ("low", "high"))
        axes[0].fill_between(sparsities["sparsity"], low, high, color=OWN_COLOURS["original"], alpha=0.2)
        axes[0].set(yscale="log", xlabel="sparsity", ylabel="perplexity / unpruned", title="All matrices together")
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
