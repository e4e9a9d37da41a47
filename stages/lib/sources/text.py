"""Text for perplexity: rows of (document, split, text)."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row
from stages.lib.sources import hutto
from stages.lib.sources.splits import UNSPLIT, Files, assign_splits
from stages.lib.sources.tables import read_table

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Text

PLAIN = (None, "plain")
TEST_SHARE = 1.0
"""The share that is scored, if `test_share` does not say."""


def read_text(item: "Text", files: Files, seed: int) -> list[Row]:
    """Read the files of a text into rows. Raises UserError for an empty text or one not in UTF-8."""
    texts = {split: _documents(item, paths) for split, paths in files.items()}
    if not any(text.strip() for documents in texts.values() for text in documents.values()):
        raise UserError("text: holds no text; give a file with content")
    if item.format in PLAIN and list(texts) == [UNSPLIT]:
        ((name, text),) = texts[UNSPLIT].items()
        return _cut(name, text, item.test_share or TEST_SHARE)
    splits = assign_splits(texts, item.test_share or TEST_SHARE, seed)
    return [
        {"document": document, "split": splits[split, document], "text": text}
        for split, documents in texts.items()
        for document, text in documents.items()
    ]


def _cut(name: str, text: str, test_share: float) -> list[Row]:
    """Cut one text in two: its beginning, up to the end of a line, is scored, the rest is for training."""
    end = len(text)
    if test_share < 1:
        end = text.find("\n", int(test_share * len(text))) + 1 or len(text)
    parts: list[Row] = [{"document": name, "split": "test", "text": text[:end]}]
    if text[end:].strip():
        parts.append({"document": name, "split": "train", "text": text[end:]})
    return parts


def _documents(item: "Text", paths: list[Path]) -> dict[str, str]:
    if item.format in PLAIN:
        return {path.name: _plain(path) for path in paths}
    if item.format == "hutto-editorials":
        return {key: text for path in paths for key, text in hutto.editorials(path).items()}
    rows = [row for path in paths for row in read_table(path, ("text",), item.columns)]
    return {str(number): str(row["text"]) for number, row in enumerate(rows)}


def _plain(path: Path) -> str:
    # Bytes, not text mode: the whole file is the document, its line ends included.
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 (byte {error.start}); convert it, for instance with iconv -t UTF-8"
        ) from None
