"""Intervals and tests against formulas written out, and against the figures of simple cases."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stages.lib.comparison import compare_accuracy, compare_perplexity, compare_rouge
from stages.lib.statistics import bootstrap, mcnemar, wilson


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (10, 10), (850, 1000), (1, 1)])
def test_wilson_is_its_formula(successes: int, trials: int) -> None:
    z = stats.norm.ppf(0.975)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    interval = wilson(successes, trials)
    assert interval.low == pytest.approx(middle - reach, abs=1e-12)
    assert interval.high == pytest.approx(middle + reach, abs=1e-12)


@pytest.mark.parametrize(("first_only", "second_only"), [(0, 0), (5, 0), (12, 3), (4, 4)])
def test_mcnemar_is_a_fair_coin_over_the_disagreements(first_only: int, second_only: int) -> None:
    both, neither = 30, 9
    first = np.array([True] * (both + first_only) + [False] * (second_only + neither))
    second = np.array([True] * both + [False] * first_only + [True] * second_only + [False] * neither)
    tosses, least = first_only + second_only, min(first_only, second_only)
    tail = sum(math.comb(tosses, heads) for heads in range(least + 1)) / 2**tosses
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


def mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return values.mean(axis=axis)


def test_bootstrap_of_a_mean_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(3).normal(5, 2, 400)
    interval = bootstrap(mean, (values,), 10_000, seed=0)
    assert interval is not None
    reach = 1.96 * values.std() / math.sqrt(400)
    assert interval.low == pytest.approx(values.mean() - reach, abs=0.03)
    assert interval.high == pytest.approx(values.mean() + reach, abs=0.03)


def test_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(7)
    hits = 0
    for seed in range(300):
        interval = bootstrap(mean, (generator.normal(0, 1, 60),), 400, seed)
        assert interval is not None
        hits += interval.low <= 0 <= interval.high
    # 95 % of 300 is 285; a binomial with that mean falls below 267 once in 200,000 times.
    assert 267 <= hits <= 300


def test_bootstrap_repeats_itself_and_follows_the_seed() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap(mean, (values,), 200, 1) == bootstrap(mean, (values,), 200, 1)
    assert bootstrap(mean, (values,), 200, 1) != bootstrap(mean, (values,), 200, 2)


def test_one_item_has_no_interval() -> None:
    assert bootstrap(mean, (np.array([1.0]),), 200, 1) is None


def scores(nll: list[float], documents: list[int]) -> pd.DataFrame:
    return pd.DataFrame({"document": documents, "window": range(len(nll)), "tokens": 10, "bytes": 40, "nll": nll})


def test_perplexity_is_weighted_by_tokens() -> None:
    perplexity, bits = compare_perplexity(scores([10, 20, 30], [0, 0, 1]), scores([20, 20, 50], [0, 0, 1]), 200, 0)
    assert perplexity.original == pytest.approx(math.exp(60 / 30))
    assert perplexity.pruned == pytest.approx(math.exp(90 / 30))
    assert bits.difference == pytest.approx(30 / math.log(2) / 120)
    assert perplexity.items == "30 tokens in 2 documents"


def test_one_document_is_compared_by_windows() -> None:
    perplexity, _ = compare_perplexity(scores([10, 20, 30], [0, 0, 0]), scores([20, 20, 50], [0, 0, 0]), 200, 0)
    assert perplexity.items == "30 tokens in 3 windows"
    assert perplexity.difference_interval is not None


def test_a_paired_difference_is_narrower_than_the_figures() -> None:
    generator = np.random.default_rng(0)
    base = generator.normal(30, 8, 80)
    before, after = scores(base.tolist(), list(range(80))), scores((base + 2).tolist(), list(range(80)))
    perplexity, bits = compare_perplexity(before, after, 1000, 0)
    assert bits.difference_interval is not None
    assert bits.original_interval is not None
    # Every document costs the same two nats more, so nothing is uncertain about the difference.
    assert bits.difference_interval.high - bits.difference_interval.low < 1e-9
    assert bits.original_interval.high - bits.original_interval.low > 0.05
    assert perplexity.pruned > perplexity.original


def test_accuracy_and_rouge() -> None:
    original = pd.DataFrame({"document": list("abcd"), "label": [0, 1, 1, 1], "predicted": [0, 1, 1, 0]})
    pruned = original.assign(predicted=[1, 1, 0, 0])
    accuracy = compare_accuracy(original, pruned, 200, 0)
    assert (accuracy.original, accuracy.pruned, accuracy.baseline) == (0.75, 0.25, 0.75)
    assert accuracy.note == "McNemar p = 0.5"
    kinds = ("rouge1", "rouge2", "rougeL")
    table = pd.DataFrame(
        {"document": list("ab"), **{k: [0.2, 0.4] for k in kinds}, **{f"lead_{k}": [0.5, 0.7] for k in kinds}}
    )
    for rouge in compare_rouge(table, table.assign(rouge1=[0.1, 0.1]), 200, 0):
        assert rouge.original == pytest.approx(0.3)
        assert rouge.baseline == pytest.approx(0.6)
        assert rouge.difference == pytest.approx(-0.2 if rouge.name == "ROUGE-1" else 0)


def test_models_on_other_items_are_not_compared() -> None:
    table = scores([10, 20], [0, 1])
    with pytest.raises(AssertionError, match="same items"):
        compare_perplexity(table, table.assign(tokens=11), 200, 0)
