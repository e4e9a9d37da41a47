"""The one form in which every stage reads a data set: a Parquet file of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.lib.corpora.splits import Split
from stages.lib.files.errors import UserError
from stages.lib.files.parquet import read_table, write_table

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Reviews

ROWS = "rows.parquet"

SEPARATOR = "\n\n"
"""Joins documents that are read as one text."""

Row = Mapping[str, Any]

CLASSES = ("negative", "positive")
"""The names of the classes of reviews, if `classes` does not give others."""


def class_names(reviews: "Reviews") -> Sequence[str]:
    """The names of the classes, in the order of their numbers, which are the rows' labels."""
    return reviews.classes or CLASSES


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write `rows.parquet` into a folder. Raises UserError if there are no rows."""
    if not rows:
        raise UserError("nothing to write: the source holds no usable rows; check its format in params.yaml")
    write_table(pd.DataFrame(rows), folder / ROWS)


def read_rows(folder: Path, split: Split | None = None) -> pd.DataFrame:
    """Read the rows of a folder, or those of one split. Raises UserError if they are missing, damaged, or none."""
    frame = read_table(folder / ROWS)
    if split is None:
        return frame
    part = frame[frame["split"] == split].reset_index(drop=True)
    if part.empty:
        raise UserError(f"{folder / ROWS}: has no {split} rows; give files for it, or change test_share in params.yaml")
    return part
