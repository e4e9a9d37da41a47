"""Parquet files that carry a hash of what is in them.

Parquet's own checksums cover its pages and not its footer, which says what the pages mean. So the
SHA-256 of names, types and values is kept in the file, and held against what was read.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from stages.lib.files.errors import UserError

KEY = b"content_sha256"

ROWS_AT_ONCE = 4096
"""Rows that are taken into the hash in one step, so that a large table is not held twice."""


def write_table(table: pa.Table, path: Path) -> None:
    """Write a table as one compressed Parquet file."""
    named = table.replace_schema_metadata({KEY: _content_sha256(table).encode()})
    parquet.write_table(named, path, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table back. Raises FileNotFoundError if it is missing, UserError if it is damaged."""
    try:
        table = parquet.read_table(path)
        found = _content_sha256(table)
        frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()  # nothing is taken from pandas' own notes
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise _damaged(path, str(error)) from None
    if found.encode() != (table.schema.metadata or {}).get(KEY):
        raise _damaged(path, "not the content that it says")
    return frame


def _content_sha256(table: pa.Table) -> str:
    digest = hashlib.sha256(str([(field.name, str(field.type)) for field in table.schema]).encode())
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        digest.update(json.dumps(table.slice(start, ROWS_AT_ONCE).to_pydict()).encode())
    return digest.hexdigest()


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); `python -m stages.verify` tells how to mend it")
