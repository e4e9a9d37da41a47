"""Reviews: ids, texts that count once, labels as names or numbers, and classes without rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import write_jsonl

from stages.lib.files.errors import UserError
from stages.lib.files.rows import read_rows, write_rows
from stages.lib.plumbing.items import LocalReviews
from stages.lib.sources.reviews import read_reviews
from stages.lib.sources.splits import UNSPLIT, Files

Rows = Sequence[tuple[str, Any]]


def item(**settings: Any) -> LocalReviews:
    return LocalReviews(source="local", path="unused", **settings)


def files(folder: Path, **splits: Rows) -> Files:
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl", [{"text": text, "label": label} for text, label in rows])
    return {split: [folder / f"{split}.jsonl"] for split in splits}


def labels(folder: Path, given: Sequence[Any], classes: list[str]) -> list[int]:
    paths = files(folder, train=[(f"cat {row}", label) for row, label in enumerate(given)])
    return [row["label"] for row in read_reviews(item(classes=classes), paths, seed=0)]


def test_ids_of_reviews_are_unique_over_splits(tmp_path: Path) -> None:
    splits = {split: [(f"{split} {row}", row % 2) for row in range(4)] for split in ("test", "train")}
    rows = read_reviews(item(), files(tmp_path, **splits), seed=0)
    assert [row["document"] for row in rows] == [f"{split}/{row}" for split in ("test", "train") for row in range(4)]
    write_rows(rows, tmp_path)
    by_id = read_rows(tmp_path).set_index("document")["text"]
    for split in ("test", "train"):
        assert all(by_id[f"{split}/{row}"] == f"{split} {row}" for row in range(4))


def test_ids_of_reviews_without_splits_are_row_numbers(tmp_path: Path) -> None:
    rows = read_reviews(item(), files(tmp_path, **{UNSPLIT: [("a", 0), ("b", 1), ("a", 0), ("c", 1)]}), seed=0)
    assert [(row["document"], row["text"]) for row in rows] == [("0", "a"), ("1", "b"), ("3", "c")]


def test_equal_ids_of_two_rated_files_are_refused(tmp_path: Path) -> None:
    for name, rating in (("a", 2), ("b", -2)):
        (tmp_path / name).write_text(f"7\t{rating}\t{name}\n", encoding="utf-8")
    rows = read_reviews(item(format="hutto-reviews"), {"test": [tmp_path / "a", tmp_path / "b"]}, seed=0)
    with pytest.raises(UserError, match="two rows have the id 'test/7'; give each its own, and name each file once"):
        write_rows(rows, tmp_path)


@pytest.mark.parametrize("seed", range(5))
def test_a_text_is_not_in_train_and_test(tmp_path: Path, seed: int) -> None:
    """In whatever split a draw puts it."""
    rows = [(f"cat {row % 10}", row % 2) for row in range(40)]
    found = read_reviews(item(), files(tmp_path, **{UNSPLIT: rows}), seed)
    assert sorted(row["text"] for row in found) == sorted({text for text, _ in rows})


def test_a_text_that_is_scored_is_not_trained_on(tmp_path: Path) -> None:
    paths = files(tmp_path, train=[("a", 0), ("b", 1), ("c", 0)], test=[("d", 0), ("b", 1), ("d", 0)])
    rows = read_reviews(item(), paths, seed=0)
    assert [(row["split"], row["text"]) for row in rows] == [
        ("train", "a"),
        ("train", "c"),
        ("test", "d"),
        ("test", "b"),
    ]


def test_a_text_of_two_labels_is_left_out(tmp_path: Path) -> None:
    rows = read_reviews(
        item(), files(tmp_path, train=[("a", 0), ("b", 1), ("c", 0)], test=[("b", 0), ("d", 1)]), seed=0
    )
    assert [row["text"] for row in rows] == ["a", "c", "d"]


def test_a_split_without_texts_of_its_own_is_refused(tmp_path: Path) -> None:
    rows = [("a", 0), ("b", 1)]
    with pytest.raises(UserError, match="no text is left for train \\(equal texts count once\\); give more rows"):
        read_reviews(item(), files(tmp_path, train=rows, test=rows), seed=0)


STARS = ["1", "2", "3"]


def test_repeated_reviews_are_said_to_be_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "reviews.jsonl"
    rows = [("good", 1), ("bad", 0), ("good", 1), ("mixed", 0), ("mixed", 1), ("fine", 1), ("poor", 0)]
    write_jsonl(path, [{"text": text, "label": label} for text, label in rows])
    assert len(read_reviews(item(), {UNSPLIT: [path]}, seed=0)) == 4
    assert capsys.readouterr().err == "reviews: 3 rows are left out, which repeat a text or give it another label\n"


@pytest.mark.parametrize(
    ("given", "classes", "expected"),
    [
        ([1, 2, 3], STARS, [0, 1, 2]),
        ([1.0, 3.0, 2.0], STARS, [0, 2, 1]),
        (["3", "2", "1"], STARS, [2, 1, 0]),
        (["1.0", "2.0", "3.0"], STARS, [0, 1, 2]),
        ([1, 2, 3], ["1.0", "2.0", "3.0"], [0, 1, 2]),
        ([0, 1, 2], STARS, [0, 1, 2]),  # 0 is no name, so all are numbers
        ([1, 0], ["1", "0"], [0, 1]),
        ([0.0, 1.0], ["bad", "good"], [0, 1]),
        (["1", "0"], ["bad", "good"], [1, 0]),
        ([True, False], ["bad", "good"], [1, 0]),
        ([True, False], ["True", "False"], [0, 1]),
        (["TRUE", "false"], ["true", "false"], [0, 1]),
        (["NA", "None"], ["None", "NA"], [1, 0]),
    ],
)
def test_a_label_that_is_a_name_is_that_class(
    tmp_path: Path, given: list[Any], classes: list[str], expected: list[int]
) -> None:
    found = labels(tmp_path, given, classes)
    assert found == expected
    assert {type(label) for label in found} == {int}


@pytest.mark.parametrize(
    ("given", "classes", "says"),
    [
        (
            [1, 2, 3, 4],
            STARS,
            ("row 4: label 4 is outside the classes 1, 2, 3, and ", "row 3: label 3 is outside 0 to 2"),
        ),
        (
            ["bad", "1"],
            ["bad", "good"],
            ("row 2: label '1' is outside the classes bad", "row 1: label 'bad' is outside 0"),
        ),
        (
            [0, 0.5],
            ["bad", "good"],
            ("row 2: label 0.5 is outside 0 to 1", "row 1: label 0.0 is outside the classes ba"),
        ),
        (
            [None, 1],
            ["None", "1"],
            ("row 1: label None is outside the classes None, 1 (or 0 to 1); correct the row, or",),
        ),
        ([float("nan")], ["nan", "1"], ("row 1: label ", " is outside the classes nan, 1 (or 0 to 1)")),
    ],
)
def test_labels_are_all_names_or_all_numbers(
    tmp_path: Path, given: list[Any], classes: list[str], says: tuple[str, ...]
) -> None:
    with pytest.raises(UserError) as caught:
        labels(tmp_path, given, classes)
    for part in says:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_are_read_one_way_over_all_files(tmp_path: Path) -> None:
    """Each file alone could be read as names or as numbers."""
    paths = files(tmp_path, train=[("a", 1), ("b", 2), ("c", 0)], test=[("d", 1), ("e", 2)])
    rows = read_reviews(item(classes=STARS), paths, seed=0)
    assert [row["label"] for row in rows] == [1, 2, 0, 1, 2]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_stars_of_a_table(tmp_path: Path, suffix: str) -> None:
    table = pd.DataFrame({"text": ["a", "b", "NA", "d"], "label": [1, 2, 3, 1]})
    path = tmp_path / f"stars.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    rows = read_reviews(item(classes=STARS), {"train": [path]}, seed=0)
    assert [(row["text"], row["label"]) for row in rows] == [("a", 0), ("b", 1), ("NA", 2), ("d", 0)]


def test_a_class_without_rows_is_refused(tmp_path: Path) -> None:
    rows = [("a", "good"), ("b", "bad"), ("c", "good"), ("c", "good")]
    with pytest.raises(UserError) as caught:
        read_reviews(item(classes=["bad", "fair", "good"]), files(tmp_path, **{UNSPLIT: rows}), seed=0)
    assert str(caught.value) == (
        "reviews: class fair has no rows (bad 1, fair 0, good 2; left out as repeated 1); add some, or correct "
        "reviews.classes in params.yaml"
    )
