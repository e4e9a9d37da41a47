"""The figures: how each follows from the predictions of a model, with its interval."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from stages.lib.figures.statistics import Interval, Values, bonett_price, ratio_intervals, wilson
from stages.lib.figures.summaries import degenerate
from stages.lib.files.parquet import why_absent
from stages.lib.files.places import MeasureName
from stages.lib.files.writing import significant


def _exp(nats: Values) -> Values:
    with np.errstate(over="ignore"):  # beyond 709 nats a perplexity is infinite
        return np.exp(nats)


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
    smallest: float = 0.0
    """The smallest value that the figure can have."""
    largest: float = math.inf
    proportion: bool = False
    """Whether it is the share of the items of which something is true: Wilson's, Bonett & Price's and McNemar's
    methods apply."""

    @property
    def change(self) -> Literal["ratio", "difference"]:
        """What `scale` makes of the difference of two models' unscaled figures."""
        return "ratio" if self.scale is _exp else "difference"


FIGURES = (
    Figure("perplexity", "perplexity", "lower", "perplexity", "nll", "tokens", _exp, smallest=1),
    Figure("bits_per_byte", "bits per byte", "lower", "perplexity", "nll", "bytes", lambda nats: nats / np.log(2)),
    Figure("accuracy", "accuracy", "higher", "classify", "right", "one", largest=1, proportion=True),
    Figure("rouge1", "ROUGE-1", "higher", "summarize", "rouge1", "one", largest=1),
    Figure("rouge2", "ROUGE-2", "higher", "summarize", "rouge2", "one", largest=1),
    Figure("rougeL", "ROUGE-L", "higher", "summarize", "rougeL", "one", largest=1),
    Figure("degenerate", "empty or repeating", "lower", "summarize", "degenerate", "one", largest=1, proportion=True),
)

UNRECOVERED = replace(FIGURES[0], key="perplexity_before_recovery", values="nll_before_recovery")


@dataclass(frozen=True)
class Estimate:
    value: float
    """Infinite for a perplexity above 1.8e308."""
    interval: Interval | None
    """None if there are too few items to tell, or they do not differ."""

    def rounded(self, key: str) -> dict[str, float]:
        """The figure under its key, and its interval, if there is one, under `_low` and `_high`, as in files."""
        ends = {f"{key}_low": self.interval.low, f"{key}_high": self.interval.high} if self.interval else {}
        return {name: significant(number) for name, number in ({key: self.value} | ends).items()}


def items(measure: MeasureName, table: pd.DataFrame) -> pd.DataFrame:
    """One row per item: a document or, of a single document, a window; a review; a document with summary."""
    if measure == "perplexity":
        unit = "document" if table["document"].nunique() > 1 else "window"
        return table.groupby(unit, as_index=False)[[key for key in table if key not in ("document", "window")]].sum()
    if measure == "summarize":
        table = table.assign(**degenerate(table["summary"].tolist()).set_index(table.index))
    return table.assign(one=1.0)


def estimates(figure: Figure, rows: Sequence[pd.DataFrame], resamples: int, seed: int) -> list[Estimate]:
    """A figure of some models on the same items, with its intervals: Wilson's for a proportion, else a bootstrap's."""
    values = np.array([of_model[figure.values].to_numpy(np.float64) for of_model in rows])
    weights = rows[0][figure.weights].to_numpy(np.float64)
    if figure.proportion:
        proportions = [wilson(int(of_model.sum()), len(weights)) for of_model in values]
        return _estimates(figure, values, weights, proportions)
    scaled = _estimates(figure, values, weights, ratio_intervals(values, weights, resamples, seed))
    return [_within(found, figure.smallest, figure.largest) for found in scaled]


def changes(
    figure: Figure, pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame]], resamples: int, seed: int
) -> list[Estimate]:
    """A figure's change from the first to the second model of each pair, on the same items, with its interval."""
    values = np.array([(after[figure.values] - before[figure.values]).to_numpy(np.float64) for before, after in pairs])
    weights = pairs[0][0][figure.weights].to_numpy(np.float64)
    if figure.proportion:
        right = [(before[figure.values].to_numpy(bool), after[figure.values].to_numpy(bool)) for before, after in pairs]
        intervals: list[Interval | None] = [bonett_price(*both) for both in right]
    else:
        intervals = ratio_intervals(values, weights, resamples, seed)
    scaled = _estimates(figure, values, weights, intervals)
    return [_within(found, 0 if figure.change == "ratio" else -figure.largest, figure.largest) for found in scaled]


def _estimates(figure: Figure, values: Values, weights: Values, intervals: Sequence[Interval | None]) -> list[Estimate]:
    return [
        Estimate(float(figure.scale(ratio)), interval and Interval(*figure.scale(np.array(interval)).tolist()))
        for ratio, interval in zip(values.sum(axis=1) / weights.sum(), intervals, strict=True)
    ]


def _within(estimate: Estimate, smallest: float, largest: float) -> Estimate:
    """The same estimate, its interval cut to the values that are possible."""
    interval = estimate.interval
    return replace(estimate, interval=interval and Interval(max(smallest, interval.low), min(largest, interval.high)))


def figures_of(measure: MeasureName, table: pd.DataFrame, resamples: int, seed: int) -> dict[str, float]:
    """All figures of one table of predictions under their keys, `_low` and `_high` for intervals, and the items.

    A perplexity above 1.8e308, which is no number in JSON, is left out. A model that does not exist has no figures.
    """
    if why_absent(table):
        return {}
    if measure == "size":
        size: dict[str, float] = {str(key): int(count) for key, count in table.iloc[0].items()}
        return {**size, "sparsity": significant(size["pruned_weights"] / size["prunable_weights"])}
    rows = items(measure, table)
    wanted = [figure for figure in FIGURES if figure.measure == measure]
    if measure == "perplexity" and UNRECOVERED.values in rows:
        wanted.append(UNRECOVERED)
    found: dict[str, float] = {}
    for figure in wanted:
        (estimate,) = estimates(figure, [rows], resamples, seed)
        found |= {key: number for key, number in estimate.rounded(figure.key).items() if math.isfinite(number)}
    if measure == "perplexity":
        return {**found, "tokens": int(rows["tokens"].sum()), "items": len(rows)}
    if measure == "summarize":
        found |= {key: significant(float(rows[key].mean())) for key in ("empty", "repeating", "lead_rougeL")}
    return {**found, "examples": len(rows)}


def summary_line(model: str, figures: Mapping[str, float]) -> str:
    """A model's figures in one line, for the screen; the keys are those of the files under metrics/."""
    if not figures:
        return f"{model}: not measured"
    perplexity = figures.get("perplexity", math.inf)
    return (
        f"{model}: perplexity {perplexity:{',.2f' if perplexity < 1e6 else '.2e'}}, "
        f"accuracy {figures['accuracy']:.3f}, ROUGE-L {figures['rougeL']:.3f}, "
        f"{figures['effective_parameters'] / 1e6:.1f}M effective parameters, {figures['stored_bytes']:,.0f} bytes"
    )
