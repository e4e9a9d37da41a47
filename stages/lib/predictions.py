"""Per-item predictions and scores: what intervals and paired tests are made from, kept by DVC."""

from pathlib import Path

import pandas as pd

from stages.lib.artifacts import new_file
from stages.lib.errors import UserError


def write_predictions(path: Path, table: pd.DataFrame) -> None:
    """Write a table as one compressed Parquet file."""
    with new_file(path) as temporary:
        table.to_parquet(temporary, index=False, compression="zstd", write_page_checksum=True)


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table back. Raises UserError if it is missing or damaged."""
    try:
        return pd.read_parquet(path, page_checksum_verification=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; `dvc repro` or `dvc checkout` brings it") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); remove it and run `dvc checkout`") from None
