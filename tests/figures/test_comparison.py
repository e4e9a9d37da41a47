"""All models of a study, compared item by item: figures, changes, and which items are the same."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.lib.figures.comparison import Comparison, compare, rows_by_model
from stages.lib.figures.definitions import FIGURES, figures_of
from stages.lib.figures.statistics import bonett_price, holm, wilson
from stages.lib.files.errors import UserError

FIGURE = {figure.key: figure for figure in FIGURES}
NOTHING = pd.DataFrame()


def scores(nll: list[float], documents: list[int]) -> pd.DataFrame:
    """Windows of ten tokens of four bytes; a document's windows have the given sums."""
    windows = {"document": documents, "window": range(len(nll)), "nll": np.divide(nll, 10)}
    table = pd.DataFrame({key: np.repeat(np.array(values), 10) for key, values in windows.items()})
    return table.assign(bytes=4, end=4 * np.arange(1, len(table) + 1))


def compared(key: str, **tables: pd.DataFrame) -> Comparison:
    measure = FIGURE[key].measure
    rows = rows_by_model(measure, {model: {measure: table} for model, table in tables.items()})
    return compare(FIGURE[key], rows, 1000, 0)


def test_perplexity_is_weighted_by_tokens() -> None:
    tables = {
        "original": scores([10, 20, 30], [0, 0, 1]),
        "pruned": scores([20, 20, 50], [0, 0, 1]),
        "merged_2": scores([20, 30, 40], [0, 0, 1]),
    }
    perplexity, bits = compared("perplexity", **tables), compared("bits_per_byte", **tables)
    assert perplexity.estimates["original"].value == pytest.approx(math.exp(60 / 30))
    assert perplexity.estimates["pruned"].value == pytest.approx(math.exp(90 / 30))
    assert bits.changes["pruned", "original"].value == pytest.approx(30 / math.log(2) / 120)
    assert bits.changes["original", "pruned"].value == pytest.approx(-30 / math.log(2) / 120)
    assert bits.changes["merged_2", "pruned"].value == pytest.approx(0)
    assert perplexity.changes["pruned", "original"].value == pytest.approx(math.exp(90 / 30) / math.exp(60 / 30))
    assert (perplexity.n, perplexity.items) == (2, "30 tokens in 2 documents")


def test_one_document_is_compared_by_windows() -> None:
    table = scores([10, 20, 30, 40, 45, 60], [0] * 6)
    perplexity = compared("perplexity", original=table, pruned=scores([20, 20, 50, 43, 46, 61], [0] * 6))
    assert perplexity.items == "60 tokens in 6 windows"
    assert perplexity.changes["pruned", "original"].interval is not None


def test_one_window_has_no_interval() -> None:
    table = scores([10], [0])
    perplexity = compared("perplexity", original=table, pruned=table)
    assert perplexity.estimates["original"].interval is None
    assert perplexity.changes["pruned", "original"].interval is None
    assert not [key for key in figures_of("perplexity", table, 100, 0) if key.endswith(("_low", "_high"))]


def test_a_paired_difference_is_narrower_than_the_figures() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(30, 8, 80)
    before, after = (
        scores(base.tolist(), list(range(80))),
        scores((base + 2 + generator.normal(0, 1e-4, 80)).tolist(), list(range(80))),
    )
    bits = compared("bits_per_byte", original=before, pruned=after)
    difference, own = bits.changes["pruned", "original"].interval, bits.estimates["original"].interval
    assert difference is not None
    assert own is not None
    # Every document costs about the same two nats more, so little is uncertain about the difference.
    assert difference.high - difference.low < 1e-4
    assert own.high - own.low > 0.05


def test_a_models_figure_in_its_own_file_is_that_of_the_comparison() -> None:
    table = scores(np.random.default_rng(0).normal(30, 8, 40).tolist(), list(range(40)))
    own = figures_of("perplexity", table, 1000, 0)
    together = compared("perplexity", pruned=table.assign(nll=0.1), original=table, merged_2=table.assign(nll=0.2))
    estimate = together.estimates["original"]
    assert estimate.interval is not None
    assert own["perplexity"] == pytest.approx(estimate.value, rel=1e-5)
    assert own["perplexity_low"] == pytest.approx(estimate.interval.low, rel=1e-5)
    assert own["perplexity_high"] == pytest.approx(estimate.interval.high, rel=1e-5)
    assert own["tokens"] == 400


def reviews(predicted: list[int]) -> pd.DataFrame:
    label = [0, 1, 1, 1]
    right = np.equal(predicted, label).astype(float)
    return pd.DataFrame({"document": list("abcd"), "label": label, "predicted": predicted, "right": right})


def test_accuracy() -> None:
    accuracy = compared("accuracy", original=reviews([0, 1, 1, 0]), pruned=reviews([1, 1, 0, 0]))
    assert accuracy.estimates["original"].value == 0.75
    assert accuracy.estimates["pruned"].value == 0.25
    assert accuracy.estimates["pruned"].interval == wilson(1, 4)
    assert (accuracy.baseline, accuracy.baseline_name, accuracy.n) == (0.75, "most frequent class", 4)
    assert accuracy.changes["pruned", "original"].p == (pytest.approx(stats.binomtest(2, 2).pvalue), False)
    before, after = np.array([True, True, True, False]), np.array([False, True, False, False])
    assert accuracy.changes["pruned", "original"].interval == bonett_price(before, after)
    assert figures_of("classify", reviews([0, 1, 1, 0]), 100, 0) == {
        "accuracy": 0.75,
        "examples": 4,
        "accuracy_low": pytest.approx(wilson(3, 4).low, abs=1e-6),
        "accuracy_high": pytest.approx(wilson(3, 4).high, abs=1e-6),
    }


def test_rouge() -> None:
    kinds = ("rouge1", "rouge2", "rougeL")
    table = pd.DataFrame(
        {
            "document": list("ab"),
            "summary": ["a cat", "a dog"],
            **{k: [0.2, 0.4] for k in kinds},
            **{f"lead_{k}": [0.5, 0.7] for k in kinds},
        }
    )
    for key in kinds:
        rouge = compared(key, original=table, pruned=table.assign(rouge1=[0.1, 0.1]))
        assert rouge.estimates["original"].value == pytest.approx(0.3)
        assert rouge.baseline == pytest.approx(0.6)
        assert rouge.changes["pruned", "original"].value == pytest.approx(-0.2 if key == "rouge1" else 0)
    assert figures_of("summarize", table, 100, 0)["lead_rougeL"] == 0.6


def test_p_values_are_corrected_over_the_models_of_each_reference() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 300)
    tables = {
        model: pd.DataFrame(
            {
                "document": range(300),
                "label": label,
                "predicted": np.where(hits := generator.random(300) < right, label, 1 - label),
                "right": hits.astype(float),
            }
        )
        for model, right in (("original", 0.85), ("pruned", 0.8), ("merged_2", 0.78), ("compressed_2", 0.5))
    }
    found = compared("accuracy", **tables).changes
    assert len(found) == 6
    for reference in ("original", "pruned"):
        mine = {model: change for (model, against), change in found.items() if against == reference}
        assert set(mine) == set(tables) - {reference}
        corrected = holm([change.p.value for change in mine.values()])
        assert [change.p_holm.value for change in mine.values()] == corrected
        for model, change in mine.items():
            first, second = (tables[name]["right"] == 1 for name in (reference, model))
            only = int((first & ~second).sum()), int((~first & second).sum())
            assert change.p.value == pytest.approx(stats.binomtest(only[0], sum(only)).pvalue)


def test_a_difference_over_one_item_is_not_significant() -> None:
    """However large: of the two ways to exchange the models, both are as extreme."""
    change = compared("perplexity", original=scores([300], [0]), pruned=scores([900], [0])).changes[
        "pruned", "original"
    ]
    assert change.p == change.p_holm == (1.0, False)
    assert change.interval is None


def test_the_change_of_a_perplexity_and_its_test_agree() -> None:
    """Even where perplexity is astronomical: the factor's interval excludes 1 where the difference is significant."""
    generator = np.random.default_rng(0)
    base = generator.normal(30, 5, 40)
    tables = {
        "original": scores(base.tolist(), list(range(40))),
        "pruned": scores((base + 200 + generator.gamma(1, 60, 40)).tolist(), list(range(40))),
    }
    change = compared("perplexity", **tables).changes["pruned", "original"]
    assert change.p.value < 0.01
    assert change.interval is not None
    assert 1 < change.interval.low < change.value < change.interval.high


def test_a_corrected_p_value_is_a_bound_if_it_follows_from_one() -> None:
    base = np.random.default_rng(0).normal(30, 5, 40)
    nll = {"original": base, "pruned": base + 9, "merged_2": base + 8, "compressed_2": base + base % 1 - 0.45}
    tables = {model: scores(values.tolist(), list(range(40))) for model, values in nll.items()}
    changes = compared("perplexity", **tables).changes
    for model in ("pruned", "merged_2"):
        assert changes[model, "original"].p == (pytest.approx(2 / 1001), True)
        assert changes[model, "original"].p_holm == (pytest.approx(3 * 2 / 1001), True)
    middling = changes["compressed_2", "original"]
    assert middling.p.value > 2 / 1001
    assert not middling.p.bound
    assert not middling.p_holm.bound


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_change_of_accuracy_stays_within_1(n: int) -> None:
    right = pd.DataFrame({"document": range(n), "label": 1, "predicted": 1, "right": 1.0})
    change = compared("accuracy", original=right, pruned=right.assign(predicted=0, right=0.0)).changes[
        "pruned", "original"
    ]
    assert change.value == -1
    assert change.interval is not None
    assert -1 == change.interval.low < change.interval.high < 1


def test_scores_that_are_all_zero_have_no_interval() -> None:
    kinds = {kind: [0.0] * 48 for kind in ("rouge1", "rouge2", "rougeL", "lead_rougeL")}
    found = figures_of("summarize", pd.DataFrame({"document": range(48), "summary": "a cat", **kinds}), 200, 0)
    assert found["rougeL"] == 0
    assert not [key for key in found if key.startswith("rouge") and key.endswith(("_low", "_high"))]


def test_the_interval_of_a_share_stays_within_0_and_1() -> None:
    scores = [0.0] * 30 + [0.9, 0.95, 1.0, 1.0, 0.8]
    kinds = dict.fromkeys(("rouge1", "rouge2", "rougeL", "lead_rougeL"), scores)
    found = figures_of("summarize", pd.DataFrame({"document": range(35), "summary": "a cat", **kinds}), 2000, 0)
    assert 0 <= found["rougeL_low"] < found["rougeL"] < found["rougeL_high"] <= 1


def test_the_interval_of_a_perplexity_begins_at_1() -> None:
    """No text has a likelihood above 1, however little is known about it."""
    found = figures_of("perplexity", scores([1, 2, 3, 5, 40], list(range(5))), 2000, 0)
    assert found["perplexity_low"] == 1
    assert found["bits_per_byte_low"] == 0


def test_a_perplexity_beyond_all_numbers_is_left_out() -> None:
    """exp(709.8) is the largest float; bits per byte stay what they are."""
    generator = np.random.default_rng(0)
    table = scores((8000 + generator.normal(0, 50, 20)).tolist(), list(range(20)))
    found = figures_of("perplexity", table, 200, 0)
    assert "perplexity" not in found
    assert found["bits_per_byte"] == pytest.approx(table["nll"].mean() / math.log(2) / 4, rel=1e-5)
    json.dumps(found, allow_nan=False)


def test_another_tokenizer_has_its_own_perplexity_and_no_change() -> None:
    table, other = scores([10, 20], [0, 1]), scores([10, 20, 30], [0, 1, 1])
    measured = {"original": table, "pruned": table.assign(kl=0.5, same_top=1.0), "distilled": other}
    perplexity, divergence = compared("perplexity", **measured), compared("kl_divergence", **measured)
    assert perplexity.estimates["distilled"].value == pytest.approx(math.exp(60 / 30))
    assert set(perplexity.changes) == {("pruned", "original"), ("original", "pruned")}
    assert (perplexity.n, perplexity.items) == (2, "20 tokens in 2 documents")
    assert list(divergence.estimates) == ["pruned"]
    assert divergence.changes == {}


def test_other_tokens_of_the_same_tokenizer_are_not_compared() -> None:
    table, other = scores([10, 20], [0, 1]), scores([10, 20, 30], [0, 1, 1])
    with pytest.raises(UserError, match="merged_2 was measured on other items, and cannot be compared"):
        compared("perplexity", original=table, pruned=table, merged_2=other.assign(kl=0.5))


def test_other_reviews_are_not_compared() -> None:
    table = reviews([0, 1, 1, 0])
    other = table.assign(document=list("abce"))
    with pytest.raises(UserError, match="pruned was measured on other items"):
        compared("accuracy", original=table, pruned=other)
    with pytest.raises(UserError, match=r"the predictions are of other items than the original's; run `dvc repro`"):
        figures_of("classify", other, 100, 0, original=table)


def test_distances_are_the_means_over_all_tokens() -> None:
    generator = np.random.default_rng(0)
    table = scores(generator.normal(30, 5, 40).tolist(), [number // 2 for number in range(40)])
    kl = {model: generator.gamma(1, size, len(table)) for model, size in (("pruned", 0.5), ("merged_2", 0.8))}
    same = {model: (values < 0.3).astype(float) for model, values in kl.items()}
    tables = {model: table.assign(kl=kl[model], same_top=same[model], top="a", original_top="b") for model in kl}
    for key, values in (("kl_divergence", kl), ("same_top", same)):
        found = compared(key, original=table, **tables)
        assert list(found.estimates) == ["pruned", "merged_2"]  # the original is at no distance from itself
        for model, estimate in found.estimates.items():
            assert estimate.value == pytest.approx(values[model].mean())
            assert estimate.interval is not None
            own = figures_of("perplexity", tables[model], 1000, 0)
            assert [own[key], own[f"{key}_low"]] == pytest.approx([estimate.value, estimate.interval.low], rel=1e-5)
        assert list(found.changes) == [("merged_2", "pruned")]
        change = found.changes["merged_2", "pruned"]
        assert change.value == pytest.approx(values["merged_2"].mean() - values["pruned"].mean())
        assert 0 < change.p.value <= 1


def test_flips_are_other_classes_than_the_originals() -> None:
    original, pruned = reviews([0, 1, 1, 0]), reviews([1, 1, 2, 1])  # one right turns wrong twice, one wrong right
    found = figures_of("classify", pruned, 100, 0, original=original)
    interval = wilson(3, 4)
    expected = {"flips": 0.75, "lost": 0.5, "gained": 0.25, "flips_low": interval.low, "flips_high": interval.high}
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-5)
    assert "flips" not in figures_of("classify", original, 100, 0)
    other = reviews([0, 1, 1, 1])
    flips = compared("flips", original=original, pruned=pruned, merged_2=other)
    assert list(flips.estimates) == ["pruned", "merged_2"]
    change = flips.changes["merged_2", "pruned"]
    assert change.value == -0.5
    assert change.p.value == pytest.approx(stats.binomtest(2, 2).pvalue)  # both flipped the last review
