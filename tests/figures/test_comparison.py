"""All models of a study, compared item by item: figures, differences, and which items are the same."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.lib.figures.comparison import Comparison, compare
from stages.lib.figures.definitions import FIGURES, figures_of
from stages.lib.figures.statistics import holm, wilson
from stages.lib.files.errors import UserError

FIGURE = {figure.key: figure for figure in FIGURES}
NOTHING = pd.DataFrame()


def scores(nll: list[float], documents: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"document": documents, "window": range(len(nll)), "tokens": 10, "bytes": 40, "nll": nll})


def compared(key: str, **tables: pd.DataFrame) -> Comparison:
    measure = FIGURE[key].measure
    return compare(FIGURE[key], {model: {measure: table} for model, table in tables.items()}, 1000, 0)


def test_perplexity_is_weighted_by_tokens() -> None:
    tables = {
        "original": scores([10, 20, 30], [0, 0, 1]),
        "pruned": scores([20, 20, 50], [0, 0, 1]),
        "merged_2": scores([20, 30, 40], [0, 0, 1]),
    }
    perplexity, bits = compared("perplexity", **tables), compared("bits_per_byte", **tables)
    assert perplexity.estimates["original"].value == pytest.approx(math.exp(60 / 30))
    assert perplexity.estimates["pruned"].value == pytest.approx(math.exp(90 / 30))
    assert bits.differences["pruned", "original"].value == pytest.approx(30 / math.log(2) / 120)
    assert bits.differences["original", "pruned"].value == pytest.approx(-30 / math.log(2) / 120)
    assert bits.differences["merged_2", "pruned"].value == pytest.approx(0)
    assert (perplexity.n, perplexity.items) == (2, "30 tokens in 2 documents")


def test_one_document_is_compared_by_windows() -> None:
    table = scores([10, 20, 30], [0, 0, 0])
    perplexity = compared("perplexity", original=table, pruned=table.assign(nll=[20, 20, 50]))
    assert perplexity.items == "30 tokens in 3 windows"
    assert perplexity.differences["pruned", "original"].interval is not None


def test_one_window_has_no_interval() -> None:
    table = scores([10], [0])
    perplexity = compared("perplexity", original=table, pruned=table)
    assert perplexity.estimates["original"].interval is None
    assert perplexity.differences["pruned", "original"].interval is None
    assert not [key for key in figures_of("perplexity", table, 100, 0) if key.endswith(("_low", "_high"))]


def test_a_paired_difference_is_narrower_than_the_figures() -> None:
    base = np.random.default_rng(0).normal(30, 8, 80)
    before, after = scores(base.tolist(), list(range(80))), scores((base + 2).tolist(), list(range(80)))
    bits = compared("bits_per_byte", original=before, pruned=after)
    difference, own = bits.differences["pruned", "original"].interval, bits.estimates["original"].interval
    assert difference is not None
    assert own is not None
    # Every document costs the same two nats more, so nothing is uncertain about the difference.
    assert difference.high - difference.low < 1e-9
    assert own.high - own.low > 0.05


def test_a_models_figure_in_its_own_file_is_that_of_the_comparison() -> None:
    table = scores(np.random.default_rng(0).normal(30, 8, 40).tolist(), list(range(40)))
    own = figures_of("perplexity", table, 1000, 0)
    together = compared("perplexity", pruned=table.assign(nll=1.0), original=table, merged_2=table.assign(nll=2.0))
    estimate = together.estimates["original"]
    assert estimate.interval is not None
    assert own["perplexity"] == pytest.approx(estimate.value, rel=1e-5)
    assert own["perplexity_low"] == pytest.approx(estimate.interval.low, rel=1e-5)
    assert own["perplexity_high"] == pytest.approx(estimate.interval.high, rel=1e-5)
    assert own["tokens"] == 400


def reviews(predicted: list[int]) -> pd.DataFrame:
    label = [0, 1, 1, 1]
    return pd.DataFrame({"document": list("abcd"), "label": label, "right": np.equal(predicted, label).astype(float)})


def test_accuracy() -> None:
    accuracy = compared("accuracy", original=reviews([0, 1, 1, 0]), pruned=reviews([1, 1, 0, 0]))
    assert accuracy.estimates["original"].value == 0.75
    assert accuracy.estimates["pruned"].value == 0.25
    assert accuracy.estimates["pruned"].interval == wilson(1, 4)
    assert (accuracy.baseline, accuracy.baseline_name, accuracy.n) == (0.75, "most frequent class", 4)
    assert accuracy.differences["pruned", "original"].p == pytest.approx(stats.binomtest(2, 2).pvalue)
    assert figures_of("classify", reviews([0, 1, 1, 0]), 100, 0) == {
        "accuracy": 0.75,
        "examples": 4,
        "accuracy_low": pytest.approx(wilson(3, 4).low, abs=1e-6),
        "accuracy_high": pytest.approx(wilson(3, 4).high, abs=1e-6),
    }


def test_rouge() -> None:
    kinds = ("rouge1", "rouge2", "rougeL")
    table = pd.DataFrame(
        {"document": list("ab"), **{k: [0.2, 0.4] for k in kinds}, **{f"lead_{k}": [0.5, 0.7] for k in kinds}}
    )
    for key in kinds:
        rouge = compared(key, original=table, pruned=table.assign(rouge1=[0.1, 0.1]))
        assert rouge.estimates["original"].value == pytest.approx(0.3)
        assert rouge.baseline == pytest.approx(0.6)
        assert rouge.differences["pruned", "original"].value == pytest.approx(-0.2 if key == "rouge1" else 0)
    assert figures_of("summarize", table, 100, 0)["lead_rougeL"] == 0.6


def test_p_values_are_corrected_over_the_models_of_each_reference() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 300)
    tables = {
        model: pd.DataFrame(
            {
                "document": range(300),
                "label": label,
                "right": (generator.random(300) < right).astype(float),
            }
        )
        for model, right in (("original", 0.85), ("pruned", 0.8), ("merged_2", 0.78), ("compressed_2", 0.5))
    }
    found = compared("accuracy", **tables).differences
    assert len(found) == 6
    for reference in ("original", "pruned"):
        mine = {model: difference for (model, against), difference in found.items() if against == reference}
        assert set(mine) == set(tables) - {reference}
        assert [difference.p_holm for difference in mine.values()] == holm([d.p for d in mine.values()])
        for model, difference in mine.items():
            first, second = (tables[name]["right"] == 1 for name in (reference, model))
            only = int((first & ~second).sum()), int((~first & second).sum())
            assert difference.p == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)


@pytest.mark.parametrize("change", [{"tokens": 11}, {"bytes": 41}])
def test_another_tokenizer_is_not_compared(change: dict[str, int]) -> None:
    table = scores([10, 20], [0, 1])
    with pytest.raises(UserError, match="distilled was measured on other tokens, by another tokenizer"):
        compared("perplexity", original=table, pruned=table, distilled=table.assign(**change))


def test_other_reviews_are_not_compared() -> None:
    table = reviews([0, 1, 1, 0])
    with pytest.raises(UserError, match="measured on other items"):
        compared("accuracy", original=table, pruned=table.assign(document=list("abce")))
