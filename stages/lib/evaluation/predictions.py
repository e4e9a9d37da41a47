"""Per-item predictions and scores: what intervals and paired tests are made from, kept by DVC."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from stages.lib.files.writing import new_file
from stages.lib.files.parquet import read_table, write_table
from stages.lib.files.errors import UserError
from stages.lib.figures.measures import Kind

PREDICTIONS = Path("data/predictions")


def predictions_path(model: str, kind: Kind) -> Path:
    """Where a model's predictions of a kind are: the original, the pruned one, or a variant by its name."""
    if model not in ("original", "pruned"):
        return PREDICTIONS / "compare" / model / f"{kind}.parquet"
    if kind == "perplexity":
        return PREDICTIONS / f"{'baseline' if model == 'original' else 'post'}_ppl.parquet"
    return PREDICTIONS / kind / f"{model}.parquet"


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a table as one compressed Parquet file."""
    with new_file(path) as temporary:
        write_table(pa.Table.from_pandas(table, preserve_index=False), temporary)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table back. Raises UserError if it is missing or damaged."""
    try:
        return read_table(path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; `dvc repro` or `dvc checkout` brings it") from None
