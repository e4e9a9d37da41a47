"""The frontier: each method's perplexity at each number of effective parameters, in one table."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from stages.lib.figures.definitions import figures_of
from stages.lib.files.errors import UserError
from stages.lib.files.predictions import read_predictions

if TYPE_CHECKING:
    from stages.lib.plumbing.settings import Frontier

POINT = ["method", "sparsity", "recovery_steps", "effective_parameters", "stored_bytes"]
COLUMNS = [*POINT, "perplexity", "perplexity_low", "perplexity_high"]


def read_frontier(folder: Path, settings: "Frontier", resamples: int, seed: int) -> pd.DataFrame:
    """One row per point and number of steps of recovery; none if no method is asked for.

    Points that are no longer asked for are not read. Raises UserError if one that is asked for is missing.
    """
    scored = _paths(folder, settings)
    rows = []
    for method in settings.methods:
        for sparsity in settings.sparsities:
            if (method, sparsity) not in scored:
                raise UserError(f"{folder}: has no point of {method} at {sparsity}; run `dvc repro`")
            table = read_predictions(scored[method, sparsity])
            for point, scores in table.groupby(POINT, sort=False):
                figures = figures_of("perplexity", scores.drop(columns=POINT), resamples, seed)
                rows.append(dict(zip(POINT, point, strict=True)) | figures)
    return pd.DataFrame(rows, columns=COLUMNS)


def _paths(folder: Path, settings: "Frontier") -> dict[tuple[str, float], Path]:
    """The files of the methods asked for, by method and sparsity; a file is named by its stage."""
    return {
        (method, float(found[1])): path
        for path in folder.glob("*.parquet")
        for method in settings.methods
        if (found := re.fullmatch(rf"{re.escape(method)}-([0-9.e-]+)", path.stem))
    }
