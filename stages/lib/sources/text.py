"""Text for perplexity: rows of (document, split, text)."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row
from stages.lib.sources import hutto
from stages.lib.sources.splits import UNSPLIT, Files, split_rows
from stages.lib.sources.tables import table_rows, text_in
from stages.lib.sources.wikitext import articles

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Text

PLAIN = (None, "plain")
TEST_SHARE = 1.0
"""The share that is scored, if `test_share` does not say."""


def read_text(item: "Text", files: Files, seed: int) -> list[Row]:
    """Read the files of a text into rows.

    Raises UserError for a text that is empty, not in UTF-8, or has no part left over where one is to be trained on.
    """
    share = item.test_share or TEST_SHARE
    documents = {split: _documents(item, paths) for split, paths in files.items()}
    if not any(row["text"].strip() for rows in documents.values() for row in rows):
        raise UserError("text: holds no text; give a file with content")
    if share < 1 and len(documents.get(UNSPLIT, ())) == 1:
        (row,) = documents[UNSPLIT]
        if item.format not in PLAIN:
            raise UserError(
                "text: has only one document, so test_share cannot split it; give more, or set text.test_share to 1"
            )
        return _cut(row["document"], row["text"], share)
    return split_rows(documents, share, seed)


def _cut(name: str, text: str, test_share: float) -> list[Row]:
    """Cut one text in two: its beginning, up to the end of a line, is scored, the rest is for training."""
    end = text.find("\n", int(test_share * len(text))) + 1
    if not (end and text[end:].strip()):
        raise UserError(
            f"text: {name} has no line break with text after {test_share:.0%} of its length, so nothing is left to "
            "train on; break it into shorter lines, or set text.test_share to 1"
        )
    return [
        {"document": name, "split": "test", "text": text[:end]},
        {"document": f"train/{name}", "split": "train", "text": text[end:]},
    ]


def _documents(item: "Text", paths: list[Path]) -> list[Row]:
    """Rows of (document, text)."""
    if item.format in PLAIN:
        folder = os.path.commonpath([path.parent for path in paths])
        texts = [(path.relative_to(folder).as_posix(), _plain(path)) for path in paths]
    elif item.format == "hutto-editorials":
        texts = [pair for path in paths for pair in hutto.editorials(path).items()]
    else:
        lines = [text_in(row, "text", place) for place, row in table_rows(paths, ("text",), item.columns)]
        numbered = enumerate(articles(lines) if item.format == "wikitext" else lines)
        texts = [(str(number), text) for number, text in numbered]
    return [{"document": name, "text": text} for name, text in texts]


def _plain(path: Path) -> str:
    # Bytes, not text mode: the whole file is the document, its line ends included.
    try:
        return path.read_bytes().decode("utf-8").removeprefix("\ufeff")  # a byte order mark
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte {error.start}); convert it, for instance with iconv -t UTF-8"
        ) from None
