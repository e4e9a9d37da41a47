"""Reviews for classification: rows of (document, split, text, label)."""

from pathlib import Path
from typing import Any

from stages.lib.corpora import hutto
from stages.lib.corpora.rows import Row
from stages.lib.corpora.splits import Files, assign_splits
from stages.lib.corpora.tables import read_table
from stages.lib.files.errors import UserError
from stages.lib.plumbing.params import HubReviews, LocalReviews, PypiReviews

ReviewItem = PypiReviews | HubReviews | LocalReviews
Labelled = dict[str, tuple[str, int]]


def read_reviews(item: ReviewItem, files: Files, seed: int) -> list[Row]:
    """Read a review item's files into rows.

    Raises UserError for a text that is missing or a label that is none of the classes.
    """
    labelled = {split: _labelled(item, paths) for split, paths in files.items()}
    splits = assign_splits(labelled, item.test_share, seed)
    return [
        {"document": document, "split": splits[split, document], "text": text, "label": label}
        for split, reviews in labelled.items()
        for document, (text, label) in reviews.items()
    ]


def _labelled(item: ReviewItem, paths: list[Path]) -> Labelled:
    if item.format == "hutto-reviews":
        return {key: value for path in paths for key, value in hutto.reviews(path).items()}
    labelled: Labelled = {}
    for path in paths:
        for number, row in enumerate(read_table(path, item.columns.model_dump()), 1):
            if not isinstance(row["text"], str) or not row["text"].strip():
                raise UserError(f"{path}, row {number}: has no text; remove the row")
            labelled[str(len(labelled))] = (row["text"], _label(row["label"], item.classes, f"{path}, row {number}"))
    return labelled


def _label(value: Any, classes: list[str], where: str) -> int:
    """A class's number, given as such or as its name."""
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    if isinstance(value, int) and 0 <= value < len(classes):
        return value
    raise UserError(
        f"{where}: label {value!r} is outside the classes {', '.join(classes)} (or 0 to {len(classes) - 1}); "
        "correct the row, or reviews.classes in params.yaml"
    )
