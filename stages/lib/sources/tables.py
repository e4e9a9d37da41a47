"""Rows from Parquet, CSV and JSON Lines files."""

import logging
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

    from stages.lib.plumbing.items import TextColumns

Cells = Mapping[str, Any]


def table_rows(paths: Sequence[Path], wanted: Sequence[str], named: "TextColumns | None") -> list[tuple[str, Cells]]:
    """The rows of several files, each with its place for an error line. Raises as `read_table` does."""
    return [
        (f"{path}, row {number}", row)
        for path in paths
        for number, row in enumerate(read_table(path, wanted, named), 1)
    ]


def text_in(row: Cells, key: str, place: str) -> str:
    """A row's text, which may be empty. Raises UserError if it has none."""
    if row[key] is None:
        raise UserError(f"{place}: has no {key}; remove the row")
    if not isinstance(row[key], str):
        raise UserError(
            f"{place}: the {key} is of type {type(row[key]).__name__}, not text; correct the row, or `columns` in "
            "params.yaml"
        )
    return str(row[key])


def filled_text_in(row: Cells, key: str, place: str) -> str:
    """A row's text. Raises UserError if it has none, or only white space."""
    text = text_in(row, key, place)
    if not text.strip():
        raise UserError(f"{place}: has no {key}; remove the row")
    return text


def read_table(path: Path, wanted: Sequence[str], named: "TextColumns | None") -> list[dict[str, Any]]:
    """Read the wanted columns, which `named` may rename. Raises UserError if the file is unreadable or lacks one."""
    import datasets
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    datasets.logging.set_verbosity(logging.CRITICAL)  # an error is reported in the one line below

    readers = {
        ".parquet": Dataset.from_parquet,
        ".csv": _from_csv,
        ".jsonl": Dataset.from_json,
        ".json": Dataset.from_json,
    }
    reader = readers.get(path.suffix)
    if reader is None:
        raise UserError(f"{path}: read as a table, which takes {', '.join(readers)} files; convert it first")
    with tempfile.TemporaryDirectory(prefix="table-") as cache:
        try:
            table = reader(str(path), cache_dir=cache, keep_in_memory=True)
        except (DatasetGenerationError, ValueError, OSError) as error:
            cause = error.__cause__ or error
            if isinstance(cause, OSError) and cause.errno is not None:
                raise cause from None  # the machine is at fault, not the file
            raise UserError(f"{path}: not readable as {path.suffix[1:]} ({cause}); convert it again") from None
        columns = {ours: getattr(named, ours) if named else ours for ours in wanted}
        missing = [name for name in columns.values() if name not in table.column_names]
        if missing:
            raise UserError(
                f"{path}: has no column {missing[0]!r} but {', '.join(table.column_names)}; "
                "correct `columns` in params.yaml"
            )
        rows = table.select_columns(list(columns.values())).to_list()
    return [{ours: row[theirs] for ours, theirs in columns.items()} for row in rows]


def _from_csv(path: str, **_: Any) -> "Dataset":
    """Every cell is text, also NA or 1.0; only an empty one is missing. Raises UserError for cells without a column."""
    import pandas as pd
    from datasets import Dataset

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], index_col=False)
        except pd.errors.ParserWarning:
            raise UserError(f"{path}: has rows with more cells than columns; put texts with commas in quotes") from None
    return Dataset.from_pandas(table, preserve_index=False)
