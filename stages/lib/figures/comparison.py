"""Compares all models with the original and with the pruned one, item by item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from stages.lib.figures.definitions import Estimate, Figure, bootstrap, estimate, items
from stages.lib.figures.statistics import Interval, holm, mcnemar, paired_p, percentile_interval
from stages.lib.files.errors import UserError
from stages.lib.files.places import MeasureName

REFERENCES = ("original", "pruned")

Tables = Mapping[str, Mapping[MeasureName, pd.DataFrame]]
"""Each model's tables of predictions, the references among them."""


@dataclass(frozen=True)
class Difference:
    """A model's figure minus a reference's on the same items."""

    value: float
    interval: Interval | None
    p: float
    """McNemar's for accuracy, else that of the paired bootstrap."""
    p_holm: float
    """Adjusted over all models that are compared with the same reference."""


@dataclass(frozen=True)
class Comparison:
    """One figure of all models on the same items."""

    figure: Figure
    estimates: Mapping[str, Estimate]
    differences: Mapping[tuple[str, str], Difference]
    """By (model, reference)."""
    n: int
    """The number of items behind the intervals."""
    items: str
    """Their number and kind, in words."""
    baseline: float | None = None
    """The figure of a trivial method on the same items, if there is one."""
    baseline_name: str = ""


def compare(figure: Figure, tables: Tables, resamples: int, seed: int) -> Comparison:
    """Compare all models in one figure. Raises UserError if a model was measured on other items."""
    rows = {model: items(figure.measure, found[figure.measure]) for model, found in tables.items()}
    _check_same_items(figure.measure, rows)
    models, n = list(rows), len(rows["original"])
    draws = dict(zip(models, bootstrap(figure, list(rows.values()), resamples, seed), strict=True))
    estimates = {model: estimate(figure, rows[model], draws[model]) for model in models}
    differences: dict[tuple[str, str], Difference] = {}
    for reference in REFERENCES:
        others = [model for model in models if model != reference]
        apart = {model: draws[model] - draws[reference] for model in others}
        if figure.key == "accuracy":
            right = {model: rows[model]["right"].to_numpy(bool) for model in models}
            p_values = [mcnemar(right[reference], right[model]) for model in others]
        else:
            p_values = [paired_p(apart[model]) for model in others]
        for model, p, adjusted in zip(others, p_values, holm(p_values), strict=True):
            difference = estimates[model].value - estimates[reference].value
            interval = percentile_interval(apart[model]) if n > 1 else None
            differences[model, reference] = Difference(difference, interval, p, adjusted)
    return Comparison(figure, estimates, differences, n, *_described(figure, rows["original"]))


def _described(figure: Figure, rows: pd.DataFrame) -> tuple[str, float | None, str]:
    """The items in words, and the figure and name of a trivial method on them."""
    if figure.measure == "perplexity":
        unit = "documents" if "document" in rows else "windows"
        return f"{int(rows['tokens'].sum()):,} tokens in {len(rows)} {unit}", None, ""
    if figure.key == "accuracy":
        return f"{len(rows):,} reviews", rows["label"].value_counts(normalize=True).max(), "most frequent class"
    if figure.measure == "classify":
        return f"{len(rows):,} reviews", None, ""
    return f"{len(rows)} documents", float(rows[f"lead_{figure.key}"].mean()), "first sentence"


def _check_same_items(measure: MeasureName, rows: Mapping[str, pd.DataFrame]) -> None:
    same: Sequence[str] = {
        "perplexity": ["tokens", "bytes"],
        "classify": ["document", "label"],
        "summarize": ["document"],
    }[measure]
    for model, found in rows.items():
        if not found[same].equals(rows["original"][same]):
            others = "tokens, by another tokenizer" if measure == "perplexity" else "items"
            raise UserError(
                f"{model} was measured on other {others}, and cannot be compared with the original item by item; "
                "run `dvc repro`, or remove it from compare.variants in params.yaml"
            )
