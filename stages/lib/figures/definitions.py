"""The figures: how each follows from the predictions of a model, with its interval."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd

from stages.lib.figures.statistics import Interval, Values, bonett_price, ratio_intervals, wilson
from stages.lib.figures.summaries import degenerate
from stages.lib.files.errors import UserError
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
    """Whether each item counts 1 or 0 and stands alone: Wilson's, Bonett & Price's and McNemar's methods apply."""
    distance: bool = False
    """Whether it says how far a model is from the original, which then has no such figure itself."""

    @property
    def change(self) -> Literal["ratio", "difference"]:
        """What `scale` makes of the difference of two models' unscaled figures."""
        return "ratio" if self.scale is _exp else "difference"


FIGURES = (
    Figure("perplexity", "perplexity", "lower", "perplexity", "nll", "tokens", _exp, smallest=1),
    Figure("bits_per_byte", "bits per byte", "lower", "perplexity", "nll", "bytes", lambda nats: nats / np.log(2)),
    Figure("kl_divergence", "KL divergence", "lower", "perplexity", "kl", "tokens", distance=True),
    Figure("same_top", "same top token", "higher", "perplexity", "same_top", "tokens", largest=1, distance=True),
    Figure("accuracy", "accuracy", "higher", "classify", "right", "one", largest=1, proportion=True),
    Figure("flips", "flips", "lower", "classify", "flipped", "one", largest=1, proportion=True, distance=True),
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


def items(measure: MeasureName, table: pd.DataFrame, original: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row per item: a document or, of a single document, a window; a review; a document with summary.

    With the original's table of the same reviews, those are marked whose predicted class is not the original's:
    `flipped`, and of these, `lost` if the original was right, and `gained` if the model is.
    """
    if measure == "perplexity":
        unit = "document" if table["document"].nunique() > 1 else "window"
        sums = table.drop(columns=["document", "window", "end"]).select_dtypes("number").assign(tokens=1)
        return sums.groupby(table[unit]).sum().reset_index()
    rows = table.assign(one=1.0)
    if measure == "summarize":
        rows = rows.assign(**degenerate(rows["summary"].tolist()).set_index(rows.index))
    if measure == "classify" and original is not None:
        before = original.set_index("document").reindex(rows["document"])
        flipped = rows["predicted"].to_numpy() != before["predicted"].to_numpy()
        rows["flipped"] = flipped.astype("float64")
        rows["lost"] = (flipped & (before["right"].to_numpy() == 1)).astype("float64")
        rows["gained"] = (flipped & (rows["right"].to_numpy() == 1)).astype("float64")
    return rows


def same_items(measure: MeasureName, rows: pd.DataFrame, others: pd.DataFrame) -> bool:
    """Whether two models were measured on the same items."""
    keys = {"perplexity": ["tokens", "bytes"], "classify": ["document", "label"], "summarize": ["document"]}[measure]
    return bool(rows[keys].equals(others[keys]))


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
        hits = [[rows[figure.values].to_numpy(bool) for rows in pair] for pair in pairs]
        intervals: list[Interval | None] = [bonett_price(before, after) for before, after in hits]
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


def figures_of(
    measure: MeasureName, table: pd.DataFrame, resamples: int, seed: int, original: pd.DataFrame | None = None
) -> dict[str, float]:
    """All figures of one table of predictions under their keys, `_low` and `_high` for intervals, and the items.

    For a model other than the original, flips follow from the original's table, too.
    A perplexity above 1.8e308, which is no number in JSON, is left out. A model that does not exist has no figures.
    Raises UserError if the original's items are others.
    """
    if why_absent(table):
        return {}
    if measure == "size":
        size: dict[str, float] = {str(key): int(count) for key, count in table.iloc[0].items()}
        return {**size, "sparsity": significant(size["pruned_weights"] / size["prunable_weights"])}
    if original is not None and not same_items(measure, table, original):
        raise UserError(f"{measure}: the predictions are of other items than the original's; run `dvc repro`")
    rows = items(measure, table, original)
    wanted = [figure for figure in (*FIGURES, UNRECOVERED) if figure.measure == measure and figure.values in rows]
    found: dict[str, float] = {}
    for figure in wanted:
        (estimate,) = estimates(figure, [rows], resamples, seed)
        found |= {key: number for key, number in estimate.rounded(figure.key).items() if math.isfinite(number)}
    if measure == "perplexity":
        return {**found, "tokens": int(rows["tokens"].sum()), "items": len(rows)}
    if "flipped" in rows:
        found |= {key: significant(float(rows[key].mean())) for key in ("lost", "gained")}
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
