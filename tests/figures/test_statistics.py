"""Intervals and tests against scipy, against formulas written out, and against simulated truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stages.lib.figures.statistics import (
    Interval,
    holm,
    mcnemar,
    paired_p,
    percentile_interval,
    resampled_ratios,
    wilson,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (7, 10), (10, 10), (850, 1000), (1, 1)])
def test_wilson_is_its_formula(successes: int, trials: int) -> None:
    z = stats.norm.ppf(0.975)
    share = successes / trials
    middle = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    reach = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    interval = wilson(successes, trials)
    assert interval.low == pytest.approx(middle - reach, abs=1e-12)
    assert interval.high == pytest.approx(middle + reach, abs=1e-12)


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_wilson_covers_the_truth_about_as_often_as_it_says(share: float) -> None:
    """Not simulated: the probability of every count of successes whose interval holds the truth, summed."""
    trials = 400
    counts = [count for count in range(trials + 1) if wilson(count, trials).low <= share <= wilson(count, trials).high]
    assert 0.93 < stats.binom.pmf(counts, trials, share).sum() < 0.97


@pytest.mark.parametrize(("first_only", "second_only"), [(0, 0), (5, 0), (12, 3), (4, 4)])
def test_mcnemar_is_a_fair_coin_over_the_disagreements(first_only: int, second_only: int) -> None:
    both, neither = 30, 9
    first = np.array([True] * (both + first_only) + [False] * (second_only + neither))
    second = np.array([True] * both + [False] * first_only + [True] * second_only + [False] * neither)
    tosses, least = first_only + second_only, min(first_only, second_only)
    tail = sum(math.comb(tosses, heads) for heads in range(least + 1)) / 2**tosses
    assert mcnemar(first, second) == pytest.approx(min(1.0, 2 * tail))


def interval_of(values: np.ndarray, weights: np.ndarray, resamples: int, seed: int) -> Interval:
    return percentile_interval(resampled_ratios(values[None], weights, resamples, seed)[0])


def ratio(values: np.ndarray, weights: np.ndarray, axis: int = -1) -> np.ndarray:
    return values.sum(axis=axis) / weights.sum(axis=axis)


def test_bootstrap_of_a_ratio_is_scipys() -> None:
    generator = np.random.default_rng(3)
    values, weights = generator.normal(50, 20, 80), generator.integers(5, 30, 80).astype(float)
    mine = interval_of(values, weights, 20_000, 0)
    theirs = stats.bootstrap(
        (values, weights), ratio, paired=True, vectorized=True, n_resamples=20_000, method="percentile", rng=1
    ).confidence_interval
    spread = theirs.high - theirs.low
    # Two bootstraps of 20,000 resamples differ by their own noise: a few thousandths of the interval's width.
    assert mine.low == pytest.approx(theirs.low, abs=0.03 * spread)
    assert mine.high == pytest.approx(theirs.high, abs=0.03 * spread)


def test_a_resample_draws_as_many_items_as_there_are() -> None:
    draws = resampled_ratios(np.array([[3.0, 3.0, 3.0]]), np.array([2.0, 2.0, 2.0]), 500, 0)
    np.testing.assert_array_equal(draws, 1.5)
    alone = resampled_ratios(np.array([[1.0, 0.0, 0.0]]), np.ones(3), 20_000, 0)[0]
    times, shares = np.unique(np.round(alone * 3), return_counts=True)
    np.testing.assert_array_equal(times, [0, 1, 2, 3])
    np.testing.assert_allclose(shares / 20_000, [8 / 27, 12 / 27, 6 / 27, 1 / 27], atol=0.012)


def test_all_models_share_the_draws() -> None:
    values = np.random.default_rng(0).normal(size=(3, 40))
    together = resampled_ratios(values, np.ones(40), 300, 7)
    apart = [resampled_ratios(row[None], np.ones(40), 300, 7)[0] for row in values]
    np.testing.assert_allclose(together, apart, rtol=1e-12, atol=1e-15)


def test_many_items_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=(2, 30))
    whole = resampled_ratios(values, np.ones(30), 100, 7)
    monkeypatch.setattr("stages.lib.figures.statistics._COUNTS_AT_ONCE", 30 * 7)
    np.testing.assert_allclose(resampled_ratios(values, np.ones(30), 100, 7), whole, rtol=1e-12, atol=1e-15)


def test_the_bootstrap_repeats_itself_and_follows_the_seed() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert interval_of(values, np.ones(50), 200, 1) == interval_of(values, np.ones(50), 200, 1)
    assert interval_of(values, np.ones(50), 200, 1) != interval_of(values, np.ones(50), 200, 2)


def test_the_bootstrap_covers_the_truth_about_as_often_as_it_says() -> None:
    """A ratio with a known value, from skewed items: sums of log-likelihoods over numbers of tokens."""
    generator = np.random.default_rng(7)
    hits = 0
    for seed in range(400):
        tokens = generator.integers(20, 200, 60).astype(float)
        nll = tokens * (3.5 + generator.gamma(2.0, 0.3, 60) - 0.6)
        interval = interval_of(nll, tokens, 500, seed)
        hits += interval.low <= 3.5 <= interval.high
    # 95 % of 400 is 380; a binomial of 94 % (60 items are few) falls below 355 once in 3,000 times.
    assert 355 <= hits <= 395


def test_the_paired_p_value_is_rarely_small_where_nothing_differs() -> None:
    generator = np.random.default_rng(5)
    small = 0
    for seed in range(400):
        differences = generator.normal(0, 1, (1, 60))
        small += paired_p(resampled_ratios(differences, np.ones(60), 500, seed)[0]) < 0.05
    # 5 % of 400 is 20; a binomial of 6 % rises above 41 once in 1,000 times.
    assert 8 <= small <= 41


def test_the_paired_p_value_is_near_that_of_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1, 100)
    mine = paired_p(resampled_ratios(differences[None], np.ones(100), 40_000, 0)[0])
    assert mine == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.25)


@pytest.mark.parametrize(
    ("draws", "p"), [([1.0] * 99, 0.02), ([-1.0] + [1.0] * 98, 0.04), ([-1.0] * 50 + [1.0] * 49, 1.0), ([0.0] * 9, 1.0)]
)
def test_the_paired_p_value_by_hand(draws: list[float], p: float) -> None:
    assert paired_p(np.array(draws)) == pytest.approx(p)


def test_holm_by_hand() -> None:
    # Holm (1979): 0.01 x 4, 0.02 x 3, max with 0.03 x 2, 0.04 x 1.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.3))
def test_holm_rejects_what_its_steps_reject(p_values: list[float], level: float) -> None:
    """The procedure as published: go up the sorted p-values, stop at the first that is too large."""
    adjusted = holm(p_values)
    rejected = set()
    for step, index in enumerate(sorted(range(len(p_values)), key=lambda at: p_values[at])):
        if p_values[index] * (len(p_values) - step) > level:
            break
        rejected.add(index)
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected
