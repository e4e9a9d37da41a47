"""Parquet files that carry a hash of their content.

Parquet's own checksums cover its pages but not its footer, which gives them their meaning. The SHA-256 of
names, types and values is therefore kept in the file, and checked on reading.
"""

import hashlib
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from stages.lib.files.errors import UserError, out_of_memory
from stages.lib.files.writing import new_file

KEY = b"content_sha256"

ROWS_AT_ONCE = 4096
"""Rows hashed in one step, so that a large table is not held in memory twice."""


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as one compressed Parquet file."""
    table = pa.Table.from_pandas(frame, preserve_index=False)
    named = table.replace_schema_metadata({KEY: _content_sha256(table).encode()})
    with new_file(path) as temporary:
        parquet.write_table(named, temporary, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    """Read a table back. Raises UserError if it is missing or damaged."""
    try:
        table = parquet.read_table(path)
        found = _content_sha256(table)
        frame: pd.DataFrame = table.replace_schema_metadata().to_pandas()  # without pandas' own metadata
    except FileNotFoundError:
        raise UserError(f"{path}: not found; restore it with `dvc repro` or `dvc checkout`") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if out_of_memory(error):
            raise
        raise _damaged(path, str(error)) from None
    if found.encode() != (table.schema.metadata or {}).get(KEY):
        raise _damaged(path, "its content does not match its hash")
    return frame


def absent_table(reason: str) -> pd.DataFrame:
    """In place of the predictions of a model that does not exist: why it does not, in a sentence."""
    return pd.DataFrame({"absent": [reason]})


def why_absent(table: pd.DataFrame) -> str | None:
    """The reason in a table of `absent_table`, None for any other."""
    return str(table["absent"].iloc[0]) if "absent" in table else None


def _content_sha256(table: pa.Table) -> str:
    digest = hashlib.sha256(str([(field.name, str(field.type)) for field in table.schema]).encode())
    for start in range(0, table.num_rows, ROWS_AT_ONCE):
        digest.update(json.dumps(table.slice(start, ROWS_AT_ONCE).to_pydict()).encode())
    return digest.hexdigest()


def _damaged(path: Path, why: str) -> UserError:
    return UserError(f"{path}: damaged ({why}); `python -m stages.verify` prints the fix")
