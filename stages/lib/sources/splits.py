"""Splits by document, so that no document is both fitted and scored."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stages.lib.files.rows import Row, Split
from stages.lib.files.sampling import shuffled

UNSPLIT = "unsplit"

Files = Mapping[str, list[Path]]
"""A source's files by split, or under `UNSPLIT` if it has none."""


def split_rows(rows: Mapping[str, Sequence[Row]], test_share: float, seed: int) -> list[Row]:
    """Rows by the source's split as one list, each with its split: the source's own, or one drawn by `test_share`.

    In the source's own splits, ids get the split in front, since each may number its rows from 0.
    """
    found: list[Row] = []
    for given, part in rows.items():
        if given == UNSPLIT:
            splits = draw_splits((row["document"] for row in part), test_share, seed)
            found += [{"document": row["document"], "split": splits[row["document"]], **_content(row)} for row in part]
        else:
            found += [{"document": f"{given}/{row['document']}", "split": given, **_content(row)} for row in part]
    return found


def draw_splits(documents: Iterable[str], test_share: float, seed: int) -> dict[str, Split]:
    """Draw the split of each document.

    A share of `test_share` is scored, at least one document; if it is below 1, at least one of several is not.
    """
    order = shuffled(documents, seed)
    most = len(order) if test_share == 1 else len(order) - 1
    scored = max(1, min(round(test_share * len(order)), most))
    return {document: "test" if rank < scored else "train" for rank, document in enumerate(order)}


def _content(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "document"}
