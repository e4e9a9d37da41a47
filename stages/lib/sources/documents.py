"""Documents with summaries: rows of (document, text, summary)."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row
from stages.lib.sources.docstrings import docstring_rows
from stages.lib.sources.splits import Files
from stages.lib.sources.tables import read_table

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Documents


def read_documents(item: "Documents", files: Files) -> list[Row]:
    """Read the files of the documents into rows; nothing is fitted on them, so they have no split.

    Raises UserError if no document has the wanted number of words, or a summary is missing.
    """
    wanted = item.min_words or 1
    rows = [row for paths in files.values() for path in paths for row in _pairs(item, path)]
    kept = [row for row in rows if len(row["text"].split()) >= wanted]
    if not kept:
        raise UserError(f"documents: none of {len(rows)} has {wanted} words; lower documents.min_words")
    return kept


def _pairs(item: "Documents", path: Path) -> list[Row]:
    if item.format == "docstrings":
        return docstring_rows(path)
    rows = read_table(path, ("text", "summary"), item.columns)
    for number, row in enumerate(rows, 1):
        for key in ("text", "summary"):
            if not isinstance(row[key], str) or not row[key].strip():
                raise UserError(f"{path}, row {number}: has no {key}; remove the row")
    return [{"document": str(number), **row} for number, row in enumerate(rows)]
