"""Compares all models with the original and with the pruned one, item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.lib.figures.definitions import Estimate, Figure, changes, estimates, items, same_items
from stages.lib.figures.statistics import Interval, PValue, holm, mcnemar, paired_p
from stages.lib.files.errors import UserError
from stages.lib.files.places import MeasureName

REFERENCES = ("original", "pruned")

Tables = Mapping[str, Mapping[MeasureName, pd.DataFrame]]
"""Each model's tables of predictions, the references among them."""


@dataclass(frozen=True)
class Change:
    """How a model's figure differs from a reference's on the same items: by a factor for perplexity, else by a sum."""

    value: float
    interval: Interval | None
    p: PValue
    """McNemar's for a share of items, else that of exchanging the two models' scores at random."""
    p_holm: PValue
    """Adjusted over all models that are compared with the same reference."""


@dataclass(frozen=True)
class Comparison:
    """One figure of all models on the same items."""

    figure: Figure
    estimates: Mapping[str, Estimate]
    changes: Mapping[tuple[str, str], Change]
    """By (model, reference)."""
    n: int
    """The number of items behind the intervals."""
    items: str
    """Their number and kind, in words."""
    baseline: float | None = None
    """The figure of a trivial method on the same items, if there is one."""
    baseline_name: str = ""


def rows_by_model(measure: MeasureName, tables: Tables) -> dict[str, pd.DataFrame]:
    """Each model's items, from which all figures of a measure follow."""
    original = tables["original"][measure]
    return {
        model: items(measure, found[measure], original if model != "original" else None)
        for model, found in tables.items()
    }


def compare(figure: Figure, rows: Mapping[str, pd.DataFrame], resamples: int, seed: int) -> Comparison:
    """Compare all models that have a figure, given each model's items.

    A model that reads the text as other tokens has its own perplexity, but no change. Raises UserError if a model was
    measured on other items for another reason.
    """
    own = {model: found for model, found in rows.items() if figure.values in found}
    same = {model: found for model, found in own.items() if _alike(model, figure.measure, found, rows["original"])}
    found = dict(zip(same, estimates(figure, list(same.values()), resamples, seed), strict=True))
    changed: dict[tuple[str, str], Change] = {}
    for reference in (reference for reference in REFERENCES if reference in same):
        pairs = {model: (same[reference], same[model]) for model in same if model != reference}
        p_values = [_paired_p(figure, *pair, resamples, seed) for pair in pairs.values()]
        estimated = changes(figure, list(pairs.values()), resamples, seed) if pairs else []
        for model, change, p, adjusted in zip(pairs, estimated, p_values, _holm(p_values), strict=True):
            changed[model, reference] = Change(change.value, change.interval, p, adjusted)
    estimated_alone = {model: estimates(figure, [own[model]], resamples, seed)[0] for model in own if model not in same}
    ordered = {model: (found | estimated_alone)[model] for model in own}
    return Comparison(figure, ordered, changed, len(rows["original"]), *_described(figure, rows["original"]))


def _alike(model: str, measure: MeasureName, rows: pd.DataFrame, original: pd.DataFrame) -> bool:
    """Whether a model has the original's items: one that reads the text as other tokens has not.

    Raises UserError if they differ for another reason.
    """
    alike = same_items(measure, rows, original)
    if not alike and (measure != "perplexity" or "kl" in rows):
        raise UserError(
            f"{model} was measured on other items, and cannot be compared with the original item by item; "
            "run `dvc repro`, or remove it from compare.variants in params.yaml"
        )
    return alike


def _paired_p(figure: Figure, before: pd.DataFrame, after: pd.DataFrame, resamples: int, seed: int) -> PValue:
    if figure.proportion:
        return PValue(mcnemar(before[figure.values].to_numpy(bool), after[figure.values].to_numpy(bool)))
    return paired_p((after[figure.values] - before[figure.values]).to_numpy(np.float64), resamples, seed)


def _holm(p_values: Sequence[PValue]) -> list[PValue]:
    """Holm's adjustment; a value is a bound if it follows from one, and not from its own p-value."""
    adjusted = holm([p.value for p in p_values])
    largest = max((value for value, p in zip(adjusted, p_values, strict=True) if p.bound), default=-1.0)
    return [
        PValue(value, bound=p.bound or p.value * (1 + 1e-9) < value <= largest)
        for value, p in zip(adjusted, p_values, strict=True)
    ]


def _described(figure: Figure, rows: pd.DataFrame) -> tuple[str, float | None, str]:
    """The items in words, and the figure and name of a trivial method on them."""
    if figure.measure == "perplexity":
        unit = "documents" if "document" in rows else "windows"
        return f"{int(rows['tokens'].sum()):,} tokens in {len(rows)} {unit}", None, ""
    if figure.key == "accuracy":
        return f"{len(rows):,} reviews", rows["label"].value_counts(normalize=True).max(), "most frequent class"
    if figure.measure == "classify":
        return f"{len(rows):,} reviews", None, ""
    lead = f"lead_{figure.key}"
    return f"{len(rows)} documents", float(rows[lead].mean()) if lead in rows else None, "first sentence"
