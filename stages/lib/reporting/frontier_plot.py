"""The report's third picture: perplexity by effective parameters, methods as curves, models as points."""

import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

from stages.lib.figures.comparison import Comparison
from stages.lib.pruning.methods import METHODS
from stages.lib.reporting.study import Size
from stages.lib.reporting.wording import curve_name

PALETTE = ("#cc6677", "#4477aa", "#228833", "#aa8800", "#aa3377", "#66ccee", "#882255")
"""Of Tol's colours that colour-blind readers can tell apart."""
COLOURS = dict(zip((method.name for method in METHODS), PALETTE, strict=False))
WORST_SHOWN = 1000
"""Perplexities above this many times the original's are drawn at the upper edge, as arrows."""


def draw(frontier: pd.DataFrame, perplexity: Comparison, sizes: Mapping[str, Size], path: Path) -> None:
    """Write an SVG, the same bytes for the same figures."""
    matplotlib.rcParams.update({"svg.hashsalt": "frontier", "font.size": 9})
    figure, axis = pyplot.subplots(figsize=(10, 5), layout="constrained")
    worst = WORST_SHOWN * perplexity.estimates["original"].value
    for _, curve in frontier.groupby(["method", "recovery_steps"], sort=False):
        _curve(axis, curve.sort_values("effective_parameters"), worst)
    for (millions, value), models in _places(perplexity, sizes, worst).items():
        axis.plot(millions, value, "^" if value == worst else "D", color="black", markersize=5)
        axis.annotate(
            "\n".join(models),
            (millions, value),
            xytext=(2, -6),
            textcoords="offset points",
            ha="right",
            va="top",
            rotation=35,
            fontsize=8,
        )
    axis.margins(x=0.11, y=0.22)  # room for the models' names, which hang below the curves
    axis.set(
        yscale="log",
        xlabel="effective parameters, millions",
        ylabel="perplexity (lower is better)",
        title=f"What is lost at N parameters (▲: beyond {WORST_SHOWN:,} times the original's)",
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(color="#dddddd")
    axis.set_axisbelow(True)
    if not frontier.empty:
        axis.legend(frameon=False, fontsize=8)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _places(perplexity: Comparison, sizes: Mapping[str, Size], worst: float) -> dict[tuple[float, float], list[str]]:
    """The models by their place in the picture; those that would overlap share one."""
    places: dict[tuple[float, float], list[str]] = {}
    for model, estimate in perplexity.estimates.items():
        place = round(sizes[model].effective_parameters / 1e6), min(estimate.value, worst)
        places.setdefault(place, []).append(model)
    return places


def _curve(axis: Axes, curve: pd.DataFrame, worst: float) -> None:
    method, steps = str(curve["method"].iloc[0]), int(curve["recovery_steps"].iloc[0])
    millions = curve["effective_parameters"] / 1e6
    axis.plot(
        millions,
        curve["perplexity"].clip(upper=worst),
        "o-" if steps else "o--",
        color=COLOURS[method],
        markersize=4,
        label=curve_name(method, steps),
    )
    low, high = (curve[f"perplexity_{end}"].clip(upper=worst) for end in ("low", "high"))
    axis.fill_between(millions, low, high, color=COLOURS[method], alpha=0.12)
