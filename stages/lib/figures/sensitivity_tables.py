"""The tables of sensitivity: perplexity by sparsity, and with each kind of matrix and each block pruned alone."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from stages.lib.figures.definitions import items
from stages.lib.figures.statistics import percentile_interval, resampled_ratios
from stages.lib.files.writing import significant

TABLES: dict[str, tuple[str, type]] = {
    "sparsities": ("sparsity", float),
    "matrices": ("matrix", str),
    "blocks": ("block", int),
}
"""By the parts pruned, the name and type of the column of points."""


def sensitivity_tables(scores: pd.DataFrame, resamples: int, seed: int) -> dict[str, pd.DataFrame]:
    """From the scores of all points to three tables, one row per point, under the keys of `TABLES`.

    `ratio` is to the perplexity of the same text with nothing pruned; its interval is paired.
    """
    unpruned = items("perplexity", _scores_only(scores[scores["pruned"] == "nothing"]))
    return {
        table: pd.DataFrame(_points(scores[scores["pruned"] == table], *column, unpruned, resamples, seed))
        for table, column in TABLES.items()
    }


def _points(
    scores: pd.DataFrame, column: str, kind: type, unpruned: pd.DataFrame, resamples: int, seed: int
) -> Iterator[dict[str, Any]]:
    for point, found in scores.groupby("point", sort=False):
        rows = items("perplexity", _scores_only(found))
        tokens, nll = rows["tokens"].to_numpy(np.float64), rows["nll"].to_numpy(np.float64)
        added = nll - unpruned["nll"].to_numpy(np.float64)
        draws = np.exp(resampled_ratios(np.vstack([nll, added]), tokens, resamples, seed))
        row: dict[str, Any] = {column: kind(point)}
        row |= {key: int(found[key].iloc[0]) for key in ("pruned_weights", "effective_parameters")}
        for key, values, drawn in zip(("perplexity", "ratio"), (nll, added), draws, strict=True):
            interval = percentile_interval(drawn)
            row[key] = significant(float(np.exp(values.sum() / tokens.sum())))
            row[f"{key}_low"], row[f"{key}_high"] = significant(interval.low), significant(interval.high)
        yield {**row, "tokens": int(tokens.sum())}


def _scores_only(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[["document", "window", "tokens", "bytes", "nll"]].reset_index(drop=True)
