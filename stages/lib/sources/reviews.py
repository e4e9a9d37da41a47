"""Reviews for classification: rows of (document, split, text, label)."""

import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row, class_names
from stages.lib.sources import hutto
from stages.lib.sources.labels import read_labels
from stages.lib.sources.splits import UNSPLIT, Files, split_rows
from stages.lib.sources.tables import filled_text_in, table_rows

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Reviews

TEST_SHARE = 0.5
"""The share that is scored, if `test_share` does not say."""


def read_reviews(item: "Reviews", files: Files, seed: int) -> list[Row]:
    """Read the files of the reviews into rows, each text once.

    Raises UserError for a text that is missing, an unknown label, a class or a split without rows.
    """
    if item.format == "hutto-reviews":
        found = {split: [row for path in paths for row in hutto.reviews(path)] for split, paths in files.items()}
    else:
        found = _from_tables(item, files)
    distinct = _distinct(found)
    rows = split_rows(distinct, item.test_share or TEST_SHARE, seed)
    left_out = sum(map(len, found.values())) - len(rows)
    _check_classes(rows, class_names(item), left_out)
    for split in ("train", "test"):
        if (split in files or UNSPLIT in files) and not any(row["split"] == split for row in rows):
            raise UserError(f"reviews: no text is left for {split} (equal texts count once); give more rows")
    if left_out:
        print(f"reviews: {left_out} rows are left out, which repeat a text or give it another label", file=sys.stderr)
    return rows


def _from_tables(item: "Reviews", files: Files) -> dict[str, list[Row]]:
    tables = {split: table_rows(paths, ("text", "label"), item.columns) for split, paths in files.items()}
    labels = iter(
        read_labels([(place, row["label"]) for rows in tables.values() for place, row in rows], class_names(item))
    )
    return {
        split: [
            {"document": str(number), "text": filled_text_in(row, "text", place), "label": next(labels)}
            for number, (place, row) in enumerate(rows)
        ]
        for split, rows in tables.items()
    }


def _distinct(found: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
    """The rows with each text once: the first of those to be scored, or else the first; none if their labels differ."""
    labels = defaultdict(set)
    for row in chain.from_iterable(found.values()):
        labels[row["text"]].add(row["label"])
    left = {text for text, those in labels.items() if len(those) == 1}
    distinct: dict[str, list[Row]] = {split: [] for split in found}
    for split in sorted(found, key=lambda split: split != "test"):
        for row in found[split]:
            if row["text"] in left:
                left.remove(row["text"])
                distinct[split].append(row)
    return distinct


def _check_classes(rows: Sequence[Row], classes: Sequence[str], left_out: int) -> None:
    found = Counter(row["label"] for row in rows)
    counts = [found[number] for number in range(len(classes))]
    if 0 in counts:
        listed = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
        listed += f"; left out as repeated {left_out}" if left_out else ""
        raise UserError(
            f"reviews: class {classes[counts.index(0)]} has no rows ({listed}); add some, or correct reviews.classes "
            "in params.yaml"
        )
