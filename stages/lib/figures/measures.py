"""The measures: how each follows from the per-item predictions of a model, with its interval."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from stages.lib.files.writing import significant
from stages.lib.figures.statistics import Interval, Values, percentile_interval, resampled_ratios, wilson

Kind: TypeAlias = Literal["perplexity", "classify", "summarize"]
"""The three tables of predictions that a model has."""
KINDS: tuple[Kind, ...] = ("perplexity", "classify", "summarize")

BEFORE_RECOVERY = "perplexity_before_recovery"
"""In the metrics of a recovered model; `_low` and `_high` beside it."""

LN2 = float(np.log(2))


@dataclass(frozen=True)
class Measure:
    """A ratio of sums over items, and a scale that it is told on."""

    key: str
    """In files under `metrics/`."""
    name: str
    better: Literal["lower", "higher"]
    kind: Kind
    values: str
    """The column of the items that is summed."""
    weights: str
    """The column that the sum is divided by."""
    scale: Callable[[Values], Values] = np.asarray


MEASURES = (
    Measure("perplexity", "perplexity", "lower", "perplexity", "nll", "tokens", np.exp),
    Measure("bits_per_byte", "bits per byte", "lower", "perplexity", "nll", "bytes", lambda nats: nats / LN2),
    Measure("accuracy", "accuracy", "higher", "classify", "right", "one"),
    Measure("rouge1", "ROUGE-1", "higher", "summarize", "rouge1", "one"),
    Measure("rouge2", "ROUGE-2", "higher", "summarize", "rouge2", "one"),
    Measure("rougeL", "ROUGE-L", "higher", "summarize", "rougeL", "one"),
)


@dataclass(frozen=True)
class Estimate:
    value: float
    interval: Interval | None
    """None where there is but one item."""


def items(kind: Kind, table: pd.DataFrame) -> pd.DataFrame:
    """One row an item: a document or, of a single document, a window; a review; a document with summary."""
    if kind == "perplexity":
        unit = "document" if table["document"].nunique() > 1 else "window"
        return table.groupby(unit, as_index=False)[["tokens", "bytes", "nll"]].sum()
    return table.assign(one=1.0)


def columns(measure: Measure, rows: pd.DataFrame) -> tuple[Values, Values]:
    """The values and the weights of a measure, item by item."""
    return rows[measure.values].to_numpy(np.float64), rows[measure.weights].to_numpy(np.float64)


def value(measure: Measure, rows: pd.DataFrame) -> float:
    values, weights = columns(measure, rows)
    return float(measure.scale(values.sum() / weights.sum()))


def own_interval(measure: Measure, rows: pd.DataFrame, draws: Values) -> Interval | None:
    """A model's interval: Wilson's for a proportion, else the percentiles of its bootstrap draws."""
    if len(rows) < 2:
        return None
    if measure.key == "accuracy":
        return wilson(int(rows["right"].sum()), len(rows))
    return percentile_interval(measure.scale(draws))


def figures(kind: Kind, table: pd.DataFrame) -> dict[str, float]:
    """All of a table's measures, and how much they were measured on."""
    rows = items(kind, table)
    found = {measure.key: significant(value(measure, rows)) for measure in MEASURES if measure.kind == kind}
    if kind == "perplexity":
        return {**found, "tokens": int(rows["tokens"].sum())}
    if kind == "summarize":
        found["lead_rougeL"] = significant(float(rows["lead_rougeL"].mean()))
    return {**found, "examples": len(rows)}


def intervals(kind: Kind, table: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """The interval of each of a table's measures, as `_low` and `_high`; none where there is but one item."""
    rows = items(kind, table)
    found: dict[str, float] = {}
    for measure in MEASURES:
        if measure.kind == kind:
            values, weights = columns(measure, rows)
            interval = own_interval(measure, rows, resampled_ratios(values[None], weights, resamples, seed)[0])
            if interval is not None:
                found[f"{measure.key}_low"] = significant(interval.low)
                found[f"{measure.key}_high"] = significant(interval.high)
    return found
