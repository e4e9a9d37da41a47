"""Documents with summaries: rows of (document, text, summary)."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row
from stages.lib.files.words import count_words
from stages.lib.sources.docstrings import docstring_rows
from stages.lib.sources.splits import Files
from stages.lib.sources.tables import Cells, filled_text_in, table_rows

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Documents


def read_documents(item: "Documents", files: Files) -> list[Row]:
    """Read the files of the documents into rows, each pair once; nothing is fitted on them, so they have no split.

    Raises UserError if no document has the wanted number of words, or a summary is missing.
    """
    paths = [path for part in files.values() for path in part]
    if item.format == "docstrings":
        rows = _renamed(row for path in paths for row in docstring_rows(path))
    else:
        rows = [
            {
                "document": str(number),
                "text": filled_text_in(row, "text", place),
                "summary": filled_text_in(_joined(row), "summary", place),
            }
            for number, (place, row) in enumerate(table_rows(paths, ("text", "summary"), item.columns))
        ]
    distinct: dict[tuple[str, str], Row] = {}
    for row in rows:
        distinct.setdefault((row["text"], row["summary"]), row)
    wanted = item.min_words or 1
    kept = [row for row in distinct.values() if count_words(row["text"]) >= wanted]
    if rows and not kept:
        raise UserError(f"documents: none of {len(rows)} has {wanted} words; lower documents.min_words")
    return kept


def _renamed(rows: Iterable[Row]) -> list[Row]:
    """The rows, with a number behind an id that an earlier row has: a module may define a function twice."""
    seen: Counter[str] = Counter()
    renamed = []
    for row in rows:
        name = row["document"]
        seen[name] += 1
        renamed.append(row if seen[name] == 1 else {**row, "document": f"{name}#{seen[name]}"})
    return renamed


def _joined(row: Cells) -> Cells:
    """A row whose summary is one text, also where it is a list of highlights."""
    summary = row["summary"]
    if isinstance(summary, list) and all(isinstance(part, str) for part in summary):
        return {**row, "summary": "\n".join(summary)}
    return row
