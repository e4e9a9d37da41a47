"""Tables with one row per point: sensitivity, and the frontier of the methods."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.lib.figures.definitions import FIGURES, estimates, items
from stages.lib.files.errors import UserError
from stages.lib.files.parquet import read_table
from stages.lib.files.writing import significant

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Frontier

POINT = ["method", "sparsity", "recovery_steps", "effective_parameters", "stored_bytes"]
COLUMNS = [*POINT, "perplexity", "perplexity_low", "perplexity_high"]

TABLES: dict[str, tuple[str, type]] = {
    "sparsities": ("sparsity", float),
    "matrices": ("matrix", str),
    "blocks": ("block", int),
}
"""Sensitivity: by the parts pruned, the name and type of the column of points."""

RATIO = replace(FIGURES[0], key="ratio", values="added_nll", smallest=0)
"""Perplexity as a multiple of that of the unpruned model."""


def read_frontier(folder: Path, settings: "Frontier", resamples: int, seed: int) -> pd.DataFrame:
    """One row per point and number of steps of recovery; none if no method is asked for.

    Points that are no longer asked for are not read. Raises UserError if one that is asked for is missing.
    """
    rows = []
    for method in settings.methods:
        stem = re.compile(re.escape(method) + "-([0-9.e-]+)")  # of a file, which is named by its stage
        paths = {float(found[1]): path for path in folder.glob("*.parquet") if (found := stem.fullmatch(path.stem))}
        for sparsity in settings.sparsities:
            if sparsity not in paths:
                raise UserError(f"{folder}: has no point of {method} at {sparsity}; run `dvc repro`")
            for point, scores in read_table(paths[sparsity]).groupby(POINT, sort=False):
                (estimate,) = estimates(FIGURES[0], [items("perplexity", scores.drop(columns=POINT))], resamples, seed)
                rows.append(dict(zip(POINT, point, strict=True)) | estimate.rounded("perplexity"))
    return pd.DataFrame(rows, columns=COLUMNS)


def sensitivity_tables(scores: pd.DataFrame, resamples: int, seed: int) -> dict[str, pd.DataFrame]:
    """From the scores of all points to three tables, one row per point, under the keys of `TABLES`.

    `ratio` is to the perplexity of the same text with nothing pruned; its interval is paired. `nats_per_million` is its
    logarithm per million pruned weights.
    """
    unpruned = _items(scores[scores["pruned"] == "nothing"])
    tables: dict[str, list[dict[str, Any]]] = {table: [] for table in TABLES}
    for (pruned, point), found in scores[scores["pruned"] != "nothing"].groupby(["pruned", "point"], sort=False):
        column, kind = TABLES[str(pruned)]
        rows = _items(found).assign(added_nll=lambda rows: rows["nll"] - unpruned["nll"])
        row: dict[str, Any] = {column: kind(point)}
        row |= {key: int(found[key].iloc[0]) for key in ("pruned_weights", "effective_parameters")}
        for figure in (FIGURES[0], RATIO):
            row |= dict.fromkeys([figure.key, f"{figure.key}_low", f"{figure.key}_high"], math.nan)  # there may be none
            (estimate,) = estimates(figure, [rows], resamples, seed)
            row |= estimate.rounded(figure.key)
        row["nats_per_million"] = significant(_nats_per_million(rows, row["pruned_weights"]))
        tables[str(pruned)].append({**row, "tokens": int(rows["tokens"].sum()), "items": len(rows)})
    return {table: pd.DataFrame(rows) for table, rows in tables.items()}


def _nats_per_million(rows: pd.DataFrame, pruned_weights: int) -> float:
    """The nats per token that a million pruned weights add; nothing pruned adds nothing."""
    return float(rows["added_nll"].sum() / rows["tokens"].sum() / max(pruned_weights, 1) * 1e6)


def _items(scores: pd.DataFrame) -> pd.DataFrame:
    return items("perplexity", scores[["document", "window", "end", "bytes", "nll"]])
