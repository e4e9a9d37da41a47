"""Predictions: a model's output for each item, from which all figures, intervals and paired tests follow.

Each measure has one table per model under `data/predictions`, and its figures beside it under `metrics`.
"""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

import pandas as pd
import pyarrow as pa

from stages.lib.files.errors import UserError
from stages.lib.files.parquet import read_table, write_table
from stages.lib.files.places import DATA, METRICS
from stages.lib.files.writing import new_file

MeasureName: TypeAlias = Literal["perplexity", "classify", "summarize", "size"]
MEASURES: tuple[MeasureName, ...] = get_args(MeasureName)

PREDICTIONS = DATA / "predictions"
FRONTIER = PREDICTIONS / "frontier"
SENSITIVITY = PREDICTIONS / "sensitivity.parquet"


def predictions_path(measure: MeasureName, model: str) -> Path:
    """The table of a model's predictions: original, pruned, or a variant by its name."""
    return PREDICTIONS / measure / f"{model}.parquet"


def metrics_path(measure: MeasureName, model: str) -> Path:
    """The file of the figures that follow from those predictions."""
    return METRICS / measure / f"{model}.json"


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a table as one compressed Parquet file."""
    with new_file(path) as temporary:
        write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table back. Raises UserError if it is missing or damaged."""
    try:
        return read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; restore it with `dvc repro` or `dvc checkout`") from None
