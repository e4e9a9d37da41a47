"""All models against the original and against the pruned one, item by item, from their predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.lib.files.errors import UserError
from stages.lib.figures.measures import Estimate, Kind, Measure, columns, items, own_interval, value
from stages.lib.figures.statistics import Interval, holm, mcnemar, paired_p, percentile_interval, resampled_ratios

REFERENCES = ("original", "pruned")

Tables = Mapping[str, Mapping[Kind, pd.DataFrame]]
"""Each model's tables of predictions, the references among them."""


@dataclass(frozen=True)
class Difference:
    """A model's measure minus a reference's on the same items."""

    value: float
    interval: Interval | None
    p: float
    """McNemar's for accuracy, else that of the paired bootstrap."""
    p_holm: float
    """Adjusted over all models that are held against the same reference."""


@dataclass(frozen=True)
class Comparison:
    """One measure of all models on the same items."""

    measure: Measure
    estimates: Mapping[str, Estimate]
    differences: Mapping[tuple[str, str], Difference]
    """By (model, reference)."""
    n: int
    """How many items the intervals are made from."""
    items: str
    """How many of what kind, in words."""
    baseline: float | None = None
    """What a trivial method reaches on the same items, if there is one."""
    baseline_name: str = ""


def compare(measure: Measure, tables: Tables, resamples: int, seed: int) -> Comparison:
    """Compare all models in one measure.

    Raises UserError if a model was measured on other items, which another tokenizer makes.
    """
    rows = {model: items(measure.kind, found[measure.kind]) for model, found in tables.items()}
    _check_same_items(measure.kind, rows)
    models, weights = list(rows), columns(measure, rows["original"])[1]
    values = np.vstack([columns(measure, rows[model])[0] for model in models])
    draws = dict(zip(models, resampled_ratios(values, weights, resamples, seed), strict=True))
    estimates = {
        model: Estimate(value(measure, rows[model]), own_interval(measure, rows[model], draws[model]))
        for model in models
    }
    differences: dict[tuple[str, str], Difference] = {}
    for reference in REFERENCES:
        others = [model for model in models if model != reference]
        apart = {model: measure.scale(draws[model]) - measure.scale(draws[reference]) for model in others}
        p_values = [_p_value(measure, rows[reference], rows[model], apart[model]) for model in others]
        for model, p, adjusted in zip(others, p_values, holm(p_values), strict=True):
            differences[model, reference] = Difference(
                estimates[model].value - estimates[reference].value,
                percentile_interval(apart[model]) if len(weights) > 1 else None,
                p,
                adjusted,
            )
    return Comparison(measure, estimates, differences, len(weights), *_described(measure, rows["original"]))


def _p_value(measure: Measure, reference: pd.DataFrame, model: pd.DataFrame, apart: np.ndarray) -> float:
    if measure.key == "accuracy":
        return mcnemar(reference["right"].to_numpy(bool), model["right"].to_numpy(bool))
    return paired_p(apart)


def _described(measure: Measure, rows: pd.DataFrame) -> tuple[str, float | None, str]:
    """The items in words, and the trivial method that they allow."""
    if measure.kind == "perplexity":
        unit = "documents" if "document" in rows else "windows"
        return f"{int(rows['tokens'].sum()):,} tokens in {len(rows)} {unit}", None, ""
    if measure.kind == "classify":
        return f"{len(rows):,} reviews", rows["label"].value_counts(normalize=True).max(), "most frequent class"
    return f"{len(rows)} documents", float(rows[f"lead_{measure.key}"].mean()), "first sentence"


def _check_same_items(kind: Kind, rows: Mapping[str, pd.DataFrame]) -> None:
    same: Sequence[str] = {
        "perplexity": ["tokens", "bytes"],
        "classify": ["document", "label"],
        "summarize": ["document"],
    }[kind]
    for model, found in rows.items():
        if not found[same].equals(rows["original"][same]):
            what = "tokens, so its tokenizer is another" if kind == "perplexity" else "items"
            raise UserError(
                f"{model} was measured on other {what}, and cannot be held against the original item by item; "
                "run `dvc repro`, or take it out of compare.variants in params.yaml"
            )
