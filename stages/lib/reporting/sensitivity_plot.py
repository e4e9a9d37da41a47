"""The report's second picture: perplexity by sparsity, and with each part pruned alone."""

import os
from collections.abc import Mapping
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes

COLOUR = "#4477aa"


def draw(tables: Mapping[str, pd.DataFrame], alone: float, path: Path) -> None:
    """Write an SVG of the three tables of sensitivity, the same bytes for the same figures.

    `alone` is the sparsity at which each part was pruned alone.
    """
    matplotlib.rcParams.update({"svg.hashsalt": "sensitivity", "font.size": 9})
    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3.2), layout="constrained", width_ratios=[1, 1, 1.4])
    sparsities = tables["sparsities"]
    axes[0].plot(sparsities["sparsity"], sparsities["perplexity"], "o-", color=COLOUR)
    axes[0].fill_between(
        sparsities["sparsity"], sparsities["perplexity_low"], sparsities["perplexity_high"], color=COLOUR, alpha=0.2
    )
    axes[0].set(yscale="log", xlabel="sparsity", ylabel="perplexity", title="All matrices together")
    matrices = tables["matrices"]
    _ratios(axes[1], matrices, [name.split(".")[-1] for name in matrices["matrix"]])
    axes[1].tick_params(axis="x", rotation=60)
    axes[1].set(title=f"Each kind of matrix alone, {alone:.0%}", ylabel="perplexity / unpruned")
    blocks = tables["blocks"]
    _ratios(axes[2], blocks, list(blocks["block"]))
    axes[2].set(title=f"Each block alone, {alone:.0%}", xlabel="block")
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _ratios(axis: Axes, table: pd.DataFrame, names: list[str]) -> None:
    below, above = table["ratio"] - table["ratio_low"], table["ratio_high"] - table["ratio"]
    axis.errorbar(names, table["ratio"], yerr=[below.clip(0), above.clip(0)], fmt="o", capsize=2, color=COLOUR)
    axis.axhline(1, color="#555555", linewidth=1, linestyle="--")
