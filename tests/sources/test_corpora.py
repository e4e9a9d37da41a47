"""Corpora: what is read from each format, and splits that keep documents apart."""

import tempfile
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from conftest import changed_params, write_params
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.files.errors import UserError
from stages.lib.files.rows import read_rows, write_rows
from stages.lib.files.sampling import draw, shuffled
from stages.lib.plumbing.params import Params, load_params
from stages.lib.sources.docstrings import docstring_rows
from stages.lib.sources.documents import read_documents
from stages.lib.sources.hutto import editorials, reviews
from stages.lib.sources.reviews import read_reviews
from stages.lib.sources.splits import UNSPLIT, draw_splits, split_rows
from stages.lib.sources.text import read_text


def params_of(folder: Path, **changes: object) -> Params:
    write_params(folder, changed_params({key.replace("__", "."): value for key, value in changes.items()}))
    return load_params(folder / "params.yaml")


@given(st.sets(st.text(min_size=1), min_size=1, max_size=60), st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_splits_depend_on_keys_and_seed_alone(keys: set[str], share: float, seed: int) -> None:
    forwards = draw_splits(sorted(keys), share, seed)
    assert draw_splits(sorted(keys, reverse=True), share, seed) == forwards
    assert len(forwards) == len(keys)
    scored = list(forwards.values()).count("test")
    assert scored == max(1, round(share * len(keys))) or (scored == len(keys) - 1 and share < 1)
    assert (scored == len(keys)) == (share == 1 or len(keys) == 1)


def test_splits_that_a_source_has_are_kept() -> None:
    rows = [{"document": "a", "text": "x"}, {"document": "b", "text": "y"}]
    assert split_rows({"train": rows, "test": rows[:1]}, 0.5, 0) == [
        {"document": "train/a", "split": "train", "text": "x"},
        {"document": "train/b", "split": "train", "text": "y"},
        {"document": "test/a", "split": "test", "text": "x"},
    ]


def test_the_seed_changes_the_order() -> None:
    keys = [str(number) for number in range(100)]
    assert sorted(shuffled(keys, 0)) == sorted(keys)
    assert shuffled(keys, 0) != shuffled(keys, 1) != keys


def test_draws_are_nested_and_repeat_themselves() -> None:
    rows = pd.DataFrame({"document": [str(number) for number in range(50)], "text": range(50)})
    small, large = draw(rows, 10, 3, "x"), draw(rows, 20, 3, "x")
    assert large.head(10).equals(small)
    assert draw(rows.iloc[::-1], 10, 3, "x").equals(small)
    assert draw(rows, 10, 3, "x", order="first")["text"].tolist() == list(range(10))
    with pytest.raises(UserError, match="x is 51, and there are 50"):
        draw(rows, 51, 3, "x")


def test_a_local_text_file_is_one_document_to_the_byte(tmp_path: Path) -> None:
    text = "na\u00efve\r\n\r\n  end \ufeff\n"
    (tmp_path / "text.txt").write_bytes(text.encode())
    item = params_of(tmp_path, text__test_share=1.0).text
    (row,) = read_text(item, {UNSPLIT: [tmp_path / "text.txt"]}, seed=0)
    assert row == {"document": "text.txt", "split": "test", "text": text}


@given(st.text(min_size=1).filter(lambda text: text.removeprefix("\ufeff").strip()), st.floats(0.01, 0.99))
def test_one_text_is_cut_in_two_at_a_line(text: str, share: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        path.write_bytes(text.encode("utf-8", "replace"))
        text = path.read_bytes().decode("utf-8-sig")
        rest = text[int(share * len(text)) :].partition("\n")[2]
        item = params_of(Path(folder), text__test_share=share).text
        if not rest.strip():
            with pytest.raises(UserError, match=r"text\.txt has no line break with text after"):
                read_text(item, {UNSPLIT: [path]}, seed=0)
            return
        rows = read_text(item, {UNSPLIT: [path]}, seed=0)
    assert rows == [
        {"document": "text.txt", "split": "test", "text": text.removesuffix(rest)},
        {"document": "train/text.txt", "split": "train", "text": rest},
    ]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [
        {"document": "a", "split": "test", "text": "na\u00efve\r\n\U0001f99c"},
        {"document": "b", "split": "train", "text": ""},
    ]
    write_rows(rows, tmp_path)
    assert read_rows(tmp_path).to_dict("records") == rows
    assert read_rows(tmp_path, "train")["document"].tolist() == ["b"]
    with pytest.raises(UserError, match="no usable rows"):
        write_rows([], tmp_path)
    with pytest.raises(UserError, match="two rows have the id 'a'; give each its own"):
        write_rows([rows[0], rows[1] | {"document": "a"}], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_editorials_are_joined_by_article(tmp_path: Path) -> None:
    path = tmp_path / "editorials.txt"
    path.write_text("1_1\t0.5\tFirst. \n1_2\t-1\tSecond.\n10_1\t2\tOther.\n", encoding="utf-8")
    assert editorials(path) == {"1": "First. Second.", "10": "Other."}


def test_reviews_are_distinct_and_clearly_rated(tmp_path: Path) -> None:
    path = tmp_path / "reviews.txt"
    path.write_text("1\t0.5\tgood\n2\t-0.4\tso so\n3\t-2\tbad\n4\t3\tgood\n", encoding="utf-8")
    item = params_of(tmp_path, reviews__format="hutto-reviews").reviews
    rows = read_reviews(item, {UNSPLIT: [path]}, seed=0)
    assert [(row["document"], row["text"], row["label"]) for row in rows] == [("1", "good", 1), ("3", "bad", 0)]
    path.write_text("1\tgood\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: not id, rating and text"):
        reviews(path)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_tables_of_every_kind(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"reviews.{suffix}"
    frame = pd.DataFrame({"review": ["a \u00e9", "b"], "stars": ["bad", "good"], "more": [1, 2]})
    if suffix == "csv":
        frame.to_csv(path, index=False)
    elif suffix == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True, force_ascii=False)
    columns = {"text": "review", "label": "stars"}
    item = params_of(tmp_path, reviews__columns=columns, reviews__classes=["bad", "good"]).reviews
    rows = read_reviews(item, {UNSPLIT: [path]}, seed=0)
    assert [(row["document"], row["text"], row["label"]) for row in rows] == [("0", "a \u00e9", 0), ("1", "b", 1)]


MODULE = '''
def documented(x):
    """Return the sum of things that are there.

    It takes things, one by one, and
    adds them.

    .. deprecated:: 1.0
        Use another.

    Then it stops.

    Parameters
    ----------
    x : int
    """

class Outer:
    """Not a summary, since no period ends it

    Body.
    """

    def inner(self):
        """Do it."""

    async def later(self):
        """Wait for it.

        A second paragraph.
        """

raise RuntimeError("imported")
'''


def test_docstrings_are_read_without_importing(tmp_path: Path) -> None:
    wheel = tmp_path / "thing-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/a.py", MODULE)
        archive.writestr("thing/tests/test_a.py", MODULE)
        archive.writestr("thing/copy.py", MODULE)  # the same pairs once more
        archive.writestr("thing/data.txt", "x")
    assert [(row["document"], row["text"], row["summary"]) for row in docstring_rows(wheel)] == [
        (
            "thing/a.py:documented",
            "It takes things, one by one, and adds them.\n\nThen it stops.",
            "Return the sum of things that are there.",
        ),
        ("thing/a.py:Outer:later", "A second paragraph.", "Wait for it."),
    ]
    item = params_of(tmp_path, documents__format="docstrings", documents__min_words=5).documents
    assert [row["document"] for row in read_documents(item, {UNSPLIT: [wheel]})] == ["thing/a.py:documented"]
    item = params_of(tmp_path, documents__format="docstrings", documents__min_words=50).documents
    with pytest.raises(UserError, match=r"none of 2 has 50 words; lower documents\.min_words"):
        read_documents(item, {UNSPLIT: [wheel]})
