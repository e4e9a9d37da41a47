"""Reviews for classification: rows of (document, split, text, label)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row, class_names
from stages.lib.sources import hutto
from stages.lib.sources.splits import Files, assign_splits
from stages.lib.sources.tables import read_table

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Reviews

TEST_SHARE = 0.5
"""The share that is scored, if `test_share` does not say."""


def read_reviews(item: "Reviews", files: Files, seed: int) -> list[Row]:
    """Read the files of the reviews into rows. Raises UserError for a text that is missing or an unknown label."""
    labelled = {split: _labelled(item, paths) for split, paths in files.items()}
    splits = assign_splits(labelled, item.test_share or TEST_SHARE, seed)
    return [
        {"document": document, "split": splits[split, document], "text": text, "label": label}
        for split, reviews in labelled.items()
        for document, (text, label) in reviews.items()
    ]


def _labelled(item: "Reviews", paths: list[Path]) -> dict[str, tuple[str, int]]:
    if item.format == "hutto-reviews":
        return {key: value for path in paths for key, value in hutto.reviews(path).items()}
    labelled: dict[str, tuple[str, int]] = {}
    for path in paths:
        for number, row in enumerate(read_table(path, ("text", "label"), item.columns), 1):
            if not isinstance(row["text"], str) or not row["text"].strip():
                raise UserError(f"{path}, row {number}: has no text; remove the row")
            labelled[str(len(labelled))] = (
                row["text"],
                _label(row["label"], class_names(item), f"{path}, row {number}"),
            )
    return labelled


def _label(value: Any, classes: Sequence[str], where: str) -> int:
    """The number of a class, given as such or by its name."""
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    if isinstance(value, int) and 0 <= value < len(classes):
        return value
    raise UserError(
        f"{where}: label {value!r} is outside the classes {', '.join(classes)} (or 0 to {len(classes) - 1}); "
        "correct the row, or reviews.classes in params.yaml"
    )
