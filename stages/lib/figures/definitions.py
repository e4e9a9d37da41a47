"""The figures: how each follows from the predictions of a model, with its interval."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from stages.lib.figures.statistics import Interval, Values, percentile_interval, resampled_ratios, wilson
from stages.lib.files.places import MeasureName
from stages.lib.files.writing import significant


@dataclass(frozen=True)
class Figure:
    """A ratio of sums over items, and the scale that it is reported on."""

    key: str
    """In files under `metrics/`."""
    name: str
    better: Literal["lower", "higher"]
    measure: MeasureName
    values: str
    """The column of the items that is summed."""
    weights: str
    """The column that the sum is divided by."""
    scale: Callable[[Values], Values] = np.asarray


FIGURES = (
    Figure("perplexity", "perplexity", "lower", "perplexity", "nll", "tokens", np.exp),
    Figure("bits_per_byte", "bits per byte", "lower", "perplexity", "nll", "bytes", lambda nats: nats / np.log(2)),
    Figure("accuracy", "accuracy", "higher", "classify", "right", "one"),
    Figure("rouge1", "ROUGE-1", "higher", "summarize", "rouge1", "one"),
    Figure("rouge2", "ROUGE-2", "higher", "summarize", "rouge2", "one"),
    Figure("rougeL", "ROUGE-L", "higher", "summarize", "rougeL", "one"),
)

UNRECOVERED = replace(FIGURES[0], key="perplexity_before_recovery", values="nll_before_recovery")


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Interval | None
    """None if there is only one item."""

    def rounded(self, key: str) -> dict[str, float]:
        """The figure under its key, and its interval, if there is one, under `_low` and `_high`, as in files."""
        ends = {f"{key}_low": self.interval.low, f"{key}_high": self.interval.high} if self.interval else {}
        return {name: significant(number) for name, number in ({key: self.value} | ends).items()}


def items(measure: MeasureName, table: pd.DataFrame) -> pd.DataFrame:
    """One row per item: a document or, of a single document, a window; a review; a document with summary."""
    if measure == "perplexity":
        unit = "document" if table["document"].nunique() > 1 else "window"
        return table.groupby(unit, as_index=False)[[key for key in table if key not in ("document", "window")]].sum()
    return table.assign(one=1.0)


def value(figure: Figure, rows: pd.DataFrame) -> float:
    return float(figure.scale(rows[figure.values].to_numpy().sum() / rows[figure.weights].to_numpy().sum()))


def bootstrap(figure: Figure, rows: Sequence[pd.DataFrame], resamples: int, seed: int) -> Values:
    """The bootstrap's draws of a figure of some models on the same items. Shape: (models, resamples)."""
    values = np.vstack([of_model[figure.values].to_numpy(np.float64) for of_model in rows])
    return figure.scale(resampled_ratios(values, rows[0][figure.weights].to_numpy(np.float64), resamples, seed))


def estimate(figure: Figure, rows: pd.DataFrame, draws: Values) -> Estimate:
    """A figure of one model, with its interval: Wilson's for a proportion, else the percentiles of its draws."""
    if len(rows) < 2:
        return Estimate(value(figure, rows), None)
    if figure.key == "accuracy":
        return Estimate(value(figure, rows), wilson(int(rows["right"].sum()), len(rows)))
    return Estimate(value(figure, rows), percentile_interval(draws))


def estimate_alone(figure: Figure, rows: pd.DataFrame, resamples: int, seed: int) -> Estimate:
    """A figure of one model, by draws of its own; none are needed for Wilson's interval or a single item."""
    needed = len(rows) > 1 and figure.key != "accuracy"
    return estimate(figure, rows, bootstrap(figure, [rows], resamples, seed)[0] if needed else np.empty(0))


def figures_of(measure: MeasureName, table: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """All figures of one table of predictions under their keys, `_low` and `_high` for intervals, and the items."""
    if measure == "size":
        size: dict[str, float] = {str(key): int(count) for key, count in table.iloc[0].items()}
        return {**size, "sparsity": significant(size["pruned_weights"] / size["prunable_weights"])}
    rows = items(measure, table)
    wanted = [figure for figure in FIGURES if figure.measure == measure]
    if measure == "perplexity" and UNRECOVERED.values in rows:
        wanted.append(UNRECOVERED)
    found: dict[str, float] = {}
    for figure in wanted:
        found |= estimate_alone(figure, rows, resamples, seed).rounded(figure.key)
    if measure == "perplexity":
        return {**found, "tokens": int(rows["tokens"].sum())}
    if measure == "summarize":
        found["lead_rougeL"] = significant(float(rows["lead_rougeL"].mean()))
    return {**found, "examples": len(rows)}


def summary_line(model: str, figures: Mapping[str, float]) -> str:
    """A model's figures in one line, for the screen; the keys are those of the files under metrics/."""
    perplexity = figures["perplexity"]
    return (
        f"{model}: perplexity {perplexity:{',.2f' if perplexity < 1e6 else '.2e'}}, "
        f"accuracy {figures['accuracy']:.3f}, ROUGE-L {figures['rougeL']:.3f}, "
        f"{figures['effective_parameters'] / 1e6:.1f}M effective parameters, {figures['stored_bytes']:,.0f} bytes"
    )
