"""The one form in which every stage reads a data set: a Parquet file of rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import pandas as pd

from stages.lib.files.errors import UserError
from stages.lib.files.parquet import read_table, write_table

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Reviews

ROWS = "rows.parquet"

SEPARATOR = "\n\n"
"""Joins documents that are read as one text."""

LONG = 200
"""Equal documents of at least this many characters are taken for the same one; short headings may repeat."""

Split: TypeAlias = Literal["train", "test"]
"""What a document is used for: fitting, or scoring."""

Row = Mapping[str, Any]

CLASSES = ("negative", "positive")
"""The names of the classes of reviews, if `classes` does not give others."""


def class_names(reviews: "Reviews") -> Sequence[str]:
    """The names of the classes, in the order of their numbers, which are the rows' labels."""
    return reviews.classes or CLASSES


def write_rows(rows: Sequence[Row], folder: Path) -> None:
    """Write `rows.parquet` into a folder. Raises UserError if there are no rows, or two with the same id."""
    if not rows:
        raise UserError("nothing to write: the source holds no usable rows; check its format in params.yaml")
    table = pd.DataFrame(rows)
    repeated = table["document"].duplicated()
    if repeated.any():
        raise UserError(
            f"two rows have the id {table['document'][repeated].iloc[0]!r}; give each its own, and name each file once "
            "in params.yaml"
        )
    write_table(table, folder / ROWS)


def read_rows(folder: Path, split: Split | None = None) -> pd.DataFrame:
    """Read the rows of a folder, or those of one split. Raises UserError if they are missing, damaged, or none."""
    frame = read_table(folder / ROWS)
    if split is None:
        return frame
    part = frame[frame["split"] == split].reset_index(drop=True)
    if part.empty:
        raise UserError(f"{folder / ROWS}: has no {split} rows; give files for it, or change test_share in params.yaml")
    return part


def unscored_documents(folder: Path) -> list[str]:
    """The documents of a text's train split. Raises UserError if there are none, or one of them is scored as well."""
    documents: list[str] = read_rows(folder, "train")["text"].tolist()
    scored = {text for text in read_rows(folder, "test")["text"] if len(text) >= LONG}
    for text in documents:
        if text in scored:
            raise UserError(
                f"the text has a document under train that is scored as well ({text[:40]!r}…); "
                "remove it from one of them, or name other files in params.yaml"
            )
    return documents
