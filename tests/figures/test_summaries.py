"""Summaries that are empty or repeat themselves, against a search of each text for each of its parts."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.lib.figures.comparison import Tables, compare, rows_by_model
from stages.lib.figures.definitions import FIGURES, figures_of
from stages.lib.figures.statistics import bonett_price, mcnemar, wilson
from stages.lib.figures.summaries import degenerate

DEGENERATE = next(figure for figure in FIGURES if figure.key == "degenerate")


def naive_repeats(words: list[str]) -> bool:
    for start in range(len(words)):
        part = words[start : start + 4]
        places = [other for other in range(len(words)) if words[other : other + 4] == part]
        if len(part) == 4 and len(places) >= 3:
            return True
    return False


@given(st.lists(st.sampled_from("abc"), max_size=40), st.sampled_from([" ", ", ", "\n"]))
def test_repetition_is_that_of_a_naive_search(words: list[str], between: str) -> None:
    found = degenerate([between.join(words)]).iloc[0]
    assert found["repeating"] == naive_repeats(words)
    assert found["empty"] == (not words)
    assert found["degenerate"] == (not words or naive_repeats(words))


@pytest.mark.parametrize(
    ("summary", "empty", "repeating"),
    [
        ("", 1, 0),
        (" \n…!", 1, 0),
        ("a cat sat on a mat", 0, 0),
        ("no no no no no", 0, 0),  # two times, a word apart
        ("no no no no no no", 0, 1),
        ("A cat sat on. a cat, sat on\nA CAT SAT ON", 0, 1),
        ("a cat sat on a cat sat on", 0, 0),
        ("猫が好き。" * 2, 0, 0),
        ("猫が好き。" * 3, 0, 1),
    ],
)
def test_by_hand(summary: str, empty: int, repeating: int) -> None:
    assert degenerate([summary]).iloc[0].to_dict() == {
        "empty": empty,
        "repeating": repeating,
        "degenerate": empty or repeating,
    }


def summaries(texts: list[str]) -> pd.DataFrame:
    kinds = dict.fromkeys(("rouge1", "rouge2", "rougeL", "lead_rouge1", "lead_rouge2", "lead_rougeL"), 0.5)
    rows = pd.DataFrame({"document": range(len(texts)), "summary": texts}, index=range(7, 7 + len(texts)))
    return rows.assign(**kinds)


def test_the_shares_are_figures_with_intervals_and_paired_tests() -> None:
    before, after = summaries(["a cat"] * 6 + [""] * 2), summaries(["", "on " * 9, "a", "b", "c", "d", "", "e"])
    found = figures_of("summarize", after, 200, 0)
    assert (found["empty"], found["repeating"], found["degenerate"]) == (0.25, 0.125, 0.375)
    assert (found["degenerate_low"], found["degenerate_high"]) == pytest.approx(wilson(3, 8), abs=1e-6)
    tables: Tables = {"original": {"summarize": before}, "pruned": {"summarize": after}}
    comparison = compare(DEGENERATE, rows_by_model("summarize", tables), 200, 0)
    change = comparison.changes["pruned", "original"]
    first, second = (degenerate(rows["summary"].tolist())["degenerate"].to_numpy(bool) for rows in (before, after))
    assert change.value == pytest.approx(1 / 8)
    assert change.interval == bonett_price(first, second)
    assert change.p.value == mcnemar(first, second) == 1
    assert (comparison.baseline, comparison.items) == (None, "8 documents")
