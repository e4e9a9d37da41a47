"""Text from several files and splits, from tables, and WikiText by article."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import write_jsonl

from stages.lib.files.errors import UserError
from stages.lib.files.rows import SEPARATOR, write_rows
from stages.lib.inference.likelihood import tokenize
from stages.lib.plumbing.items import LocalText
from stages.lib.sources.splits import UNSPLIT
from stages.lib.sources.text import read_text


def item(**settings: Any) -> LocalText:
    return LocalText(source="local", path="unused", **settings)


def written(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def test_text_files_of_one_name_are_all_read(tmp_path: Path) -> None:
    paths = [written(tmp_path / folder / "part.txt", folder) for folder in ("a", "b")]
    rows = read_text(item(), {"test": paths}, seed=0)
    assert [(row["document"], row["text"]) for row in rows] == [("test/a/part.txt", "a"), ("test/b/part.txt", "b")]


@pytest.mark.parametrize(
    ("name", "content", "settings"),
    [
        ("text.txt", "the cat", {}),
        ("text.csv", "text\nthe cat\n", {"format": "table"}),
        ("text.jsonl", '{"text": "the cat"}\n', {"format": "table"}),
        ("text.tsv", "1_1\t0\tthe cat\n", {"format": "hutto-editorials"}),
    ],
)
def test_a_byte_order_mark_is_no_text(tmp_path: Path, name: str, content: str, settings: dict[str, Any]) -> None:
    rows = []
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / name).write_text(content, encoding=encoding)
        rows.append(read_text(item(**settings), {UNSPLIT: [tmp_path / name]}, seed=0))
    assert rows[0] == rows[1]
    assert rows[0][0]["text"] == "the cat"


def test_a_file_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "part.txt", "the cat")
    with pytest.raises(
        UserError, match=r"two rows have the id 'test/part\.txt'; give each its own, and name each file"
    ):
        write_rows(read_text(item(), {"test": [path, path]}, seed=0), tmp_path)


def test_ids_of_a_text_are_unique_over_splits_and_files(tmp_path: Path) -> None:
    files = {}
    for split in ("test", "train"):
        files[split] = [tmp_path / f"{split}{shard}.jsonl" for shard in range(2)]
        for path in files[split]:
            write_jsonl(path, [{"text": f"{path.name} {row}"} for row in range(3)])
    rows = read_text(item(format="table"), files, seed=0)
    assert len({row["document"] for row in rows}) == len(rows) == 12
    write_rows(rows, tmp_path)


def test_equal_ids_of_two_rated_files_are_refused(tmp_path: Path) -> None:
    paths = [written(tmp_path / name, f"7_1\t1\t{name}\n") for name in ("a.txt", "b.txt")]
    rows = read_text(item(format="hutto-editorials"), {"test": paths}, seed=0)
    with pytest.raises(UserError, match="two rows have the id 'test/7'"):
        write_rows(rows, tmp_path)


def test_one_document_is_not_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "text.jsonl", [{"text": "the cat sat"}])
    files = {UNSPLIT: [tmp_path / "text.jsonl"]}
    with pytest.raises(UserError, match="has only one document, so test_share cannot split it; give more, or"):
        read_text(item(format="table", test_share=0.5), files, seed=0)
    assert [row["split"] for row in read_text(item(format="table"), files, seed=0)] == ["test"]


def test_of_two_documents_one_is_left_to_train_on(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "text.jsonl", [{"text": "the cat"}, {"text": "sat"}])
    rows = read_text(item(format="table", test_share=0.9), {UNSPLIT: [tmp_path / "text.jsonl"]}, seed=0)
    assert sorted(row["split"] for row in rows) == ["test", "train"]


def test_a_text_of_one_line_is_refused_with_a_remedy(tmp_path: Path) -> None:
    files = {UNSPLIT: [written(tmp_path / "text.txt", "one line only")]}
    with pytest.raises(UserError) as caught:
        read_text(item(test_share=0.5), files, seed=0)
    assert str(caught.value) == (
        "text: text.txt has no line break with text after 50% of its length, so nothing is left to train on; "
        "break it into shorter lines, "
        "or set text.test_share to 1"
    )
    assert len(read_text(item(test_share=1.0), files, seed=0)) == 1


def test_words_that_look_missing_are_text_in_csv(tmp_path: Path) -> None:
    texts = ["NA", "None", "null", "nan", "1.0", "true", " "]
    path = written(tmp_path / "text.csv", "text,more\n" + "".join(f"{text},x\n" for text in texts))
    assert [row["text"] for row in read_text(item(format="table"), {"test": [path]}, seed=0)] == texts


@pytest.mark.parametrize(
    "content",
    ["text\nHello, world\nGood, day\n", "text,n\na text,that has a comma,1\nb,c,2\n", "text,n\nb,2\na text,with,1\n"],
)
def test_cells_without_a_column_are_refused(tmp_path: Path, content: str) -> None:
    """Read as an index, the first cells of such rows would be lost, and the others be taken for them."""
    path = written(tmp_path / "text.csv", content)
    with pytest.raises(UserError, match=r"text\.csv: (has rows with more cells than columns; put|not readable as csv)"):
        read_text(item(format="table"), {"test": [path]}, seed=0)


def test_a_comma_at_the_end_of_each_row_moves_no_text(tmp_path: Path) -> None:
    path = written(tmp_path / "text.csv", "text,n\nHello,1,\nbye,2,\n")
    try:
        found = [row["text"] for row in read_text(item(format="table"), {"test": [path]}, seed=0)]
    except UserError as error:
        assert "more cells than columns" in str(error)
    else:
        assert found == ["Hello", "bye"]


def test_an_empty_cell_of_csv_is_no_text(tmp_path: Path) -> None:
    path = written(tmp_path / "text.csv", 'text,more\nthe cat,x\n,x\n"",x\n')
    with pytest.raises(UserError, match=r"text\.csv, row 2: has no text; remove the row"):
        read_text(item(format="table"), {"test": [path]}, seed=0)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_null_is_no_text_but_an_empty_line_is(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"text.{suffix}"
    for texts in (["the cat", "", "sat"], ["the cat", None, "sat"]):
        if suffix == "jsonl":
            write_jsonl(path, [{"text": text} for text in texts])
        else:
            pd.DataFrame({"text": texts}).to_parquet(path)
        if None in texts:
            with pytest.raises(UserError, match="row 2: has no text; remove the row"):
                read_text(item(format="table"), {"test": [path]}, seed=0)
        else:
            assert [row["text"] for row in read_text(item(format="table"), {"test": [path]}, seed=0)] == texts


def test_numbers_are_no_text(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "text.jsonl", [{"text": 5}])
    with pytest.raises(UserError, match="row 1: the text is of type int, not text; correct the row, or `columns`"):
        read_text(item(format="table"), {"test": [tmp_path / "text.jsonl"]}, seed=0)


# Rows as the data set has them: an empty line before and after a heading, and lines of prose that begin like one.
WIKITEXT = [
    "",
    " = Robert Boulter = \n",
    "",
    " Robert Boulter is an English film , television and theatre actor . \n",
    "",
    " = = Career = = \n",
    "",
    "",
    " = = = 2000 – 2005 = = = \n",
    "",
    " In 2000 Boulter had a guest @-@ starring role . \n",
    " = 1 kg / s and a nominal k = \n",
    " He lived . \n",
    "",
    " = Du Fu = \n",
    "",
    " Du Fu ( Chinese : 杜甫 ) was a poet . \n",
    "",
    " = Kiss You ( One Direction song ) = \n",
    "",
    ' " Kiss You " is a song . \n',
    "",
]


def wikitext(tmp_path: Path, lines: list[str], form: str, shards: int = 1) -> list[str]:
    paths = [tmp_path / f"{shard}.parquet" for shard in range(shards)]
    for path, part in zip(paths, np.array_split(np.array(lines, dtype=object), shards), strict=True):
        pd.DataFrame({"text": part}).to_parquet(path)
    rows = read_text(item(format=form), {"test": paths}, seed=0)
    write_rows(rows, tmp_path)  # their ids are unique
    return [row["text"] for row in rows]


def test_lines_of_wikitext_are_grouped_by_article(tmp_path: Path) -> None:
    articles = wikitext(tmp_path, WIKITEXT, "wikitext")
    assert articles == [SEPARATOR.join(WIKITEXT[:14]), SEPARATOR.join(WIKITEXT[14:18]), SEPARATOR.join(WIKITEXT[18:])]


def test_articles_score_the_same_bytes_and_tokens_as_lines(tmp_path: Path, tokenizer: Any) -> None:
    by_article, by_line = (wikitext(tmp_path, WIKITEXT, form) for form in ("wikitext", "table"))
    assert SEPARATOR.join(by_article).encode() == SEPARATOR.join(by_line).encode()
    found, expected = tokenize(tokenizer, by_article), tokenize(tokenizer, by_line)
    assert found.tokens.tolist() == expected.tokens.tolist()
    assert found.byte_counts.tolist() == expected.byte_counts.tolist()
    assert set(found.document) == {0, 1, 2}


def test_an_article_may_go_on_in_the_next_file(tmp_path: Path) -> None:
    assert wikitext(tmp_path, WIKITEXT, "wikitext", shards=3) == wikitext(tmp_path, WIKITEXT, "wikitext")


def test_wikitext_without_a_title_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="has no line like ' = Title = ', which begins an article of WikiText; use form"
    ):
        wikitext(tmp_path, ["", " = = Section = = \n", "", " Prose . \n"], "wikitext")
