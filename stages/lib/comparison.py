"""Original against pruned, from their saved predictions: figures, intervals, paired differences."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.statistics import Interval, Values, bootstrap, mcnemar, wilson

LN2 = float(np.log(2))


@dataclass(frozen=True)
class Comparison:
    """One metric of two models on the same items."""

    name: str
    better: str
    """`lower` or `higher`."""
    original: float
    original_interval: Interval | None
    pruned: float
    pruned_interval: Interval | None
    difference_interval: Interval | None
    items: str
    """How many items of what kind."""
    baseline: float | None = None
    """What a trivial method reaches on the same items, if there is one."""
    baseline_name: str = ""
    note: str = ""

    @property
    def difference(self) -> float:
        return self.pruned - self.original


def compare_perplexity(original: pd.DataFrame, pruned: pd.DataFrame, resamples: int, seed: int) -> list[Comparison]:
    """Perplexity and bits per byte; items are documents, or windows where there is one document."""
    unit = "document" if original["document"].nunique() > 1 else "window"
    before, after = (table.groupby(unit)[["tokens", "bytes", "nll"]].sum() for table in (original, pruned))
    _same_items(before[["tokens", "bytes"]], after[["tokens", "bytes"]])
    nll = before["nll"].to_numpy(), after["nll"].to_numpy()
    items = f"{int(before['tokens'].sum()):,} tokens in {len(before)} {unit}s"

    def mean_exp(losses: Values, tokens: Values, axis: int = -1) -> Any:
        return np.exp(losses.sum(axis=axis) / tokens.sum(axis=axis))

    def mean_bits(losses: Values, sizes: Values, axis: int = -1) -> Any:
        return losses.sum(axis=axis) / sizes.sum(axis=axis) / LN2

    return [
        _compare(name, "lower", statistic, nll, before[weight].to_numpy(float), items, resamples, seed)
        for name, statistic, weight in (("perplexity", mean_exp, "tokens"), ("bits per byte", mean_bits, "bytes"))
    ]


def compare_accuracy(original: pd.DataFrame, pruned: pd.DataFrame, resamples: int, seed: int) -> Comparison:
    """Accuracy, with Wilson's interval for each model and McNemar's test between them."""
    _same_items(original[["document", "label"]], pruned[["document", "label"]])
    right = [(table["predicted"] == table["label"]).to_numpy() for table in (original, pruned)]

    def difference(before: Values, after: Values, axis: int = -1) -> Any:
        return after.mean(axis=axis) - before.mean(axis=axis)

    before, after = (values.astype(float) for values in right)
    return Comparison(
        "accuracy",
        "higher",
        float(before.mean()),
        wilson(int(right[0].sum()), len(before)),
        float(after.mean()),
        wilson(int(right[1].sum()), len(after)),
        bootstrap(difference, (before, after), resamples, seed),
        f"{len(before):,} reviews",
        max(np.bincount(original["label"])) / len(original),
        "most frequent class",
        f"McNemar p = {mcnemar(*right):.2g}",
    )


def compare_rouge(original: pd.DataFrame, pruned: pd.DataFrame, resamples: int, seed: int) -> list[Comparison]:
    """Mean ROUGE F-measures, next to those of the documents' first sentences."""
    _same_items(original[["document"]], pruned[["document"]])
    ones = np.ones(len(original))

    def mean(scores: Values, _: Values, axis: int = -1) -> Any:
        return scores.mean(axis=axis)

    return [
        _compare(
            name,
            "higher",
            mean,
            (original[kind].to_numpy(), pruned[kind].to_numpy()),
            ones,
            f"{len(original)} documents",
            resamples,
            seed,
            float(original[f"lead_{kind}"].mean()),
            "first sentence",
        )
        for name, kind in (("ROUGE-1", "rouge1"), ("ROUGE-2", "rouge2"), ("ROUGE-L", "rougeL"))
    ]


def _compare(
    name: str,
    better: str,
    statistic: Any,
    values: tuple[Values, Values],
    weights: Values,
    items: str,
    resamples: int,
    seed: int,
    baseline: float | None = None,
    baseline_name: str = "",
) -> Comparison:
    def difference(before: Values, after: Values, weight: Values, axis: int = -1) -> Any:
        return statistic(after, weight, axis=axis) - statistic(before, weight, axis=axis)

    before, after = values
    return Comparison(
        name,
        better,
        float(statistic(before, weights)),
        bootstrap(statistic, (before, weights), resamples, seed),
        float(statistic(after, weights)),
        bootstrap(statistic, (after, weights), resamples, seed),
        bootstrap(difference, (before, after, weights), resamples, seed),
        items,
        baseline,
        baseline_name,
    )


def _same_items(first: pd.DataFrame, second: pd.DataFrame) -> None:
    if not first.equals(second):
        raise AssertionError("the two models were not scored on the same items")
