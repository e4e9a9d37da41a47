"""Documents: ids over several files, lists of highlights, and words in scripts without spaces."""

import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import write_jsonl

from stages.lib.files.errors import UserError
from stages.lib.files.rows import read_rows, write_rows
from stages.lib.files.sampling import draw
from stages.lib.plumbing.items import LocalDocuments
from stages.lib.sources.documents import read_documents
from stages.lib.sources.splits import UNSPLIT


def item(**settings: Any) -> LocalDocuments:
    return LocalDocuments(source="local", path="unused", **settings)


def table(path: Path, *rows: tuple[str, Any]) -> Path:
    write_jsonl(path, [{"text": text, "summary": summary} for text, summary in rows])
    return path


def test_documents_of_several_files_are_numbered_through(tmp_path: Path) -> None:
    paths = [table(tmp_path / f"{name}.jsonl", *((f"{name}{row}", "s") for row in range(5))) for name in "abc"]
    rows = read_documents(item(), {"test": paths[:2], "train": paths[2:]})
    assert [row["document"] for row in rows] == [str(number) for number in range(15)]
    write_rows(rows, tmp_path)
    assert len(draw(read_rows(tmp_path), 3, 0, "summarize.examples")) == 3


def test_a_summary_may_be_a_list_of_highlights(tmp_path: Path) -> None:
    (row,) = read_documents(item(), {UNSPLIT: [table(tmp_path / "a.jsonl", ("the cat", ["It sat.", "It ran."]))]})
    assert row["summary"] == "It sat.\nIt ran."
    pd.DataFrame({"text": ["the cat"], "summary": [["It sat.", "It ran."]]}).to_parquet(tmp_path / "a.parquet")
    assert read_documents(item(), {UNSPLIT: [tmp_path / "a.parquet"]}) == [row]


@pytest.mark.parametrize(
    ("summary", "says"),
    [([], "row 1: has no summary; remove the row"), ([1, 2], "row 1: the summary is of type list, not text; correct")],
)
def test_a_list_without_highlights_is_no_summary(tmp_path: Path, summary: list[Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_documents(item(), {UNSPLIT: [table(tmp_path / "a.jsonl", ("the cat", summary))]})


@pytest.mark.parametrize(
    ("text", "words"),
    [("我爱北京天安门。你呢?", 9), ("今日は 雨です", 6), ("ฉันรักเธอ", 7), ("the cat — sat", 4), ("यह हिन्दी है ।", 4)],
)
def test_min_words_counts_letters_where_a_script_has_no_spaces(tmp_path: Path, text: str, words: int) -> None:
    files = {UNSPLIT: [table(tmp_path / "a.jsonl", (text, "s"))]}
    assert len(read_documents(item(min_words=words), files)) == 1
    with pytest.raises(UserError, match=rf"none of 1 has {words + 1} words; lower documents\.min_words"):
        read_documents(item(min_words=words + 1), files)


def wheel(path: Path, **modules: str | bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in modules.items():
            archive.writestr(f"thing/{name}.py", content)
    return path


def documented(summary: str) -> str:
    return f'def f():\n    """{summary}.\n\n    It does {summary}.\n    """\n'


def test_functions_of_one_name_have_ids_of_their_own(tmp_path: Path) -> None:
    paths = [
        wheel(tmp_path / "a.whl", m=documented("Add") + documented("Sum")),
        wheel(tmp_path / "b.whl", m=documented("Go")),
    ]
    rows = read_documents(item(format="docstrings"), {"test": paths})
    assert [row["document"] for row in rows] == ["thing/m.py:f", "thing/m.py:f#2", "thing/m.py:f#3"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("def f(:\n", "thing/broken.py, line 1"),
        ("x = 1\n  y = 2\n", "thing/broken.py, line 2"),
        (b"x = '\0'", "thing/bro"),
        ("x = " + "+".join(["1"] * 100_000) + "\n", "thing/bro"),
        ("x = " + "-" * 100_000 + "1\n", "thing/bro"),
    ],
)
def test_a_module_that_is_not_python_is_named(tmp_path: Path, content: str | bytes, place: str) -> None:
    path = wheel(tmp_path / "thing-1-py3-none-any.whl", a=documented("Add"), broken=content)
    with pytest.raises(UserError) as caught:
        read_documents(item(format="docstrings"), {UNSPLIT: [path]})
    assert str(caught.value).startswith(f"thing-1-py3-none-any.whl: {place}")
    assert "not Python 3." in str(caught.value)
    assert str(caught.value).endswith("; name another wheel under documents in params.yaml")


def test_each_pair_counts_once(tmp_path: Path) -> None:
    """Copies are no independent items: they would make intervals too narrow."""
    path = tmp_path / "documents.jsonl"
    write_jsonl(path, [{"text": text, "summary": "A cat."} for text in ("a", "b", "a", "a")])
    assert [row["document"] for row in read_documents(item(), {UNSPLIT: [path]})] == ["0", "1"]


def test_a_summary_line_may_end_as_its_script_does(tmp_path: Path) -> None:
    path = wheel(tmp_path / "a.whl", m='def f():\n    """摘要。\n\n    说明文字。\n    """\n')
    (row,) = read_documents(item(format="docstrings"), {UNSPLIT: [path]})
    assert (row["summary"], row["text"]) == ("摘要。", "说明文字。")


def test_a_damaged_module_is_named(tmp_path: Path) -> None:
    path = wheel(tmp_path / "a.whl", m=documented("Add"))
    path.write_bytes(path.read_bytes().replace(b"It does", b"It dies"))
    with pytest.raises(UserError, match=r"a\.whl: thing/m\.py is damaged; fetch the wheel again"):
        read_documents(item(format="docstrings"), {UNSPLIT: [path]})


def test_a_wheel_without_summaries_is_not_told_about_words(tmp_path: Path) -> None:
    rows = read_documents(item(format="docstrings", min_words=9), {UNSPLIT: [wheel(tmp_path / "a.whl", m="x = 1\n")]})
    with pytest.raises(UserError, match="the source holds no usable rows"):
        write_rows(rows, tmp_path)
