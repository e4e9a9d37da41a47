"""Intervals and tests against scipy, against formulas written out, and against simulated truth."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stages.lib.figures.statistics import Interval, bonett_price, holm, mcnemar, paired_p, ratio_intervals, wilson


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


def interval_of(values: np.ndarray, weights: np.ndarray, resamples: int = 2000, seed: int = 0) -> Interval | None:
    return ratio_intervals(values[None], weights, resamples, seed)[0]


def skewed(generator: np.random.Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of log-likelihoods over numbers of tokens, 3.5 nats per token in truth."""
    tokens = generator.integers(20, 200, items).astype(float)
    return tokens * (3.5 + generator.gamma(2.0, 0.3, items) - 0.6), tokens


def test_the_interval_is_the_bootstrap_t_written_out() -> None:
    """Resample by resample, as in Efron & Tibshirani (1993), section 12.5."""
    values, weights = skewed(np.random.default_rng(3), 12)

    def ratio_and_error(values: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
        ratio = values.sum() / weights.sum()
        return ratio, math.sqrt(((values - ratio * weights) ** 2).sum()) / weights.sum()

    ratio, error = ratio_and_error(values, weights)
    generator = np.random.default_rng(8)
    studentized = []
    for _ in range(20_000):
        drawn = generator.integers(0, 12, 12)
        resampled, its_error = ratio_and_error(values[drawn], weights[drawn])
        studentized.append((resampled - ratio) / its_error)
    low, high = np.quantile(studentized, [0.025, 0.975])
    interval = interval_of(values, weights, 20_000)
    assert interval is not None
    # Two bootstraps of 20,000 resamples differ by their own noise.
    assert interval.low == pytest.approx(ratio - high * error, abs=0.05 * error)
    assert interval.high == pytest.approx(ratio - low * error, abs=0.05 * error)


def test_the_interval_of_many_items_is_that_of_the_t_distribution() -> None:
    values = np.random.default_rng(0).normal(5, 1, 4000)
    interval = interval_of(values, np.ones(4000))
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    assert interval == pytest.approx([expected.low, expected.high], abs=0.06 * (expected.high - expected.low))


@pytest.mark.parametrize("values", [[3.0], [3.0] * 8, [0.0] * 48, [0.1 * 3] * 7], ids=["one", "equal", "zeros", "sums"])
def test_items_that_do_not_differ_have_no_interval(values: list[float]) -> None:
    assert interval_of(np.array(values), np.ones(len(values))) is None


def test_equal_ratios_of_unequal_items_have_no_interval() -> None:
    weights = np.array([3.0, 7.0, 11.0, 13.0, 17.0, 19.0])
    assert interval_of(weights * 0.7, weights) is None


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.0], [1.0, 2.0, 4.0], [0.0] * 20 + [0.5], [0.0] * 40 + [0.4, 0.6]],
    ids=["two", "three", "one of 21", "two of 42"],
)
def test_too_few_items_that_differ_have_no_interval(values: list[float]) -> None:
    """More than 2.5 % of the resamples draw only items that do not differ, so an end would be infinite."""
    assert interval_of(np.array(values), np.ones(len(values))) is None


def test_five_items_have_a_wide_interval() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0, 6.0])
    interval, student = interval_of(values, np.ones(5)), stats.ttest_1samp(values, 0).confidence_interval()
    assert interval is not None
    assert interval.low < 3.2 < interval.high
    assert interval.high - interval.low > 0.8 * (student.high - student.low)


def test_the_interval_reaches_as_far_as_students() -> None:
    """Of symmetric differences, most of them 0, a bootstrap-t alone contains the true value in 86 % of the cases."""
    values = np.array([0.0] * 22 + [0.2, -0.21, 0.1, -0.12, 0.3, -0.28, 0.05, -0.04, 0.15, -0.14])
    student, interval = stats.ttest_1samp(values, 0).confidence_interval(), interval_of(values, np.ones(32))
    assert interval is not None
    assert interval.low <= student.low + 1e-12
    assert interval.high >= student.high - 1e-12


def test_each_ratio_has_the_interval_that_it_has_alone() -> None:
    values = np.random.default_rng(0).normal(size=(3, 40))
    values[1] = 2
    together = ratio_intervals(values, np.ones(40), 300, 7)
    alone = [interval_of(row, np.ones(40), 300, 7) for row in values]
    assert together[1] is alone[1] is None
    for both in ((together[0], alone[0]), (together[2], alone[2])):
        np.testing.assert_allclose(*both, rtol=1e-9)


def test_many_items_are_drawn_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).normal(size=30)
    whole = interval_of(values, np.ones(30), 100, 7)
    monkeypatch.setattr("stages.lib.figures.statistics._COUNTS_AT_ONCE", 30 * 7)
    assert interval_of(values, np.ones(30), 100, 7) == pytest.approx(whole, rel=1e-12)


def test_the_bootstrap_repeats_itself_and_follows_the_seed() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert interval_of(values, np.ones(50), 200, 1) == interval_of(values, np.ones(50), 200, 1)
    assert interval_of(values, np.ones(50), 200, 1) != interval_of(values, np.ones(50), 200, 2)


def test_resamples_are_not_drawn_from_the_stream_of_the_bare_seed() -> None:
    """The order of training is drawn from that one; intervals must not move with it."""
    values = np.arange(20.0)
    counts = np.random.default_rng(7).multinomial(20, np.full(20, 1 / 20), 200)
    shifts = counts @ (values - values.mean()) / 20
    errors = np.sqrt(counts @ values**2 / 20 - (counts @ values / 20) ** 2) / math.sqrt(20)
    low, high = np.quantile(shifts / errors, [0.025, 0.975], method="inverted_cdf")
    error = values.std() / math.sqrt(20)
    assert interval_of(values, np.ones(20), 200, 7) != pytest.approx(
        (values.mean() - high * error, values.mean() - low * error), rel=1e-6
    )


@pytest.mark.parametrize(("items", "least"), [(5, 0.90), (10, 0.92), (60, 0.92)])
def test_the_interval_covers_the_truth_about_as_often_as_it_says(items: int, least: float) -> None:
    """Skewed ratios with a known value. A share of 94 % of 400 falls below 90.4 % once in 500 times."""
    generator = np.random.default_rng(items)
    intervals = [interval_of(*skewed(generator, items), 500, seed) for seed in range(400)]
    assert None not in intervals
    hits = sum(interval.low <= 3.5 <= interval.high for interval in intervals if interval)
    assert least * 400 - 14 <= hits <= 395


@pytest.mark.parametrize("items", [2, 3, 5, 8])
def test_the_paired_p_value_goes_through_all_signs(items: int) -> None:
    differences = np.random.default_rng(items).exponential(1, items) - 0.3
    sums = [
        abs(sum(sign * value for sign, value in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=items)
    ]
    extreme = sum(found >= abs(differences.sum()) - 1e-12 for found in sums)
    assert paired_p(differences, 10_000, 0) == (pytest.approx(extreme / 2**items), False)


@pytest.mark.parametrize("items", [1, 2, 3, 4, 6, 9])
def test_the_paired_p_value_is_as_small_as_the_items_allow_and_no_smaller(items: int) -> None:
    """Every item differs the same way, by however much: of all signs, only two are as extreme."""
    differences = np.random.default_rng(0).uniform(1, 1e6, items)
    assert paired_p(differences, 10_000, 0) == (pytest.approx(2 / 2**items), False)


def test_items_that_do_not_differ_do_not_count() -> None:
    assert paired_p(np.array([0.0] * 40 + [1.0, 2.0, 3.0]), 1000, 0) == (pytest.approx(0.25), False)
    assert paired_p(np.zeros(40), 1000, 0) == (1.0, False)


def test_a_sampled_p_value_at_its_smallest_is_a_bound() -> None:
    assert paired_p(np.full(60, 0.5), 1000, 0) == (pytest.approx(2 / 1001), True)
    middling = paired_p(np.random.default_rng(0).normal(0.1, 1, 60), 1000, 0)
    assert 2 / 1001 < middling.value < 1
    assert not middling.bound


@pytest.mark.parametrize("items", [2, 3, 4, 6, 12, 60])
def test_the_paired_p_value_is_rarely_small_where_nothing_differs(items: int) -> None:
    generator = np.random.default_rng(items)
    small = sum(paired_p(generator.normal(0, 1, items), 500, seed).value < 0.05 for seed in range(400))
    # 5 % of 400 is 20; a binomial of 5 % rises above 34 once in 1,000 times.
    assert small <= (0 if items <= 4 else 34)


def test_the_paired_p_value_is_near_that_of_the_t_test() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1, 100)
    found = paired_p(differences, 40_000, 0)
    assert found.value == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, rel=0.25)


def test_the_interval_of_a_paired_proportion_is_its_formula() -> None:
    """Bonett & Price (2012): one is added to both kinds of disagreement, and two to the examples."""
    first = np.array([True] * 9 + [False] * 4 + [True] * 30 + [False] * 7)
    second = np.array([False] * 9 + [True] * 4 + [True] * 30 + [False] * 7)
    lost, won = 10 / 52, 5 / 52
    reach = 1.959963985 * math.sqrt((lost + won - (lost - won) ** 2) / 52)
    assert bonett_price(first, second) == pytest.approx((won - lost - reach, won - lost + reach))


def test_the_interval_of_a_paired_proportion_covers_the_truth() -> None:
    """Not simulated: over all counts of disagreements among 40 examples, 15 % and 5 % of them in truth."""
    n, lost, won = 40, 0.15, 0.05
    covered = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            share = stats.multinomial.pmf([a, b, n - a - b], n, [lost, won, 1 - lost - won])
            if share < 1e-7:
                continue
            first, second = np.array([True] * a + [False] * b + [True] * (n - a - b)), np.arange(n) >= a
            interval = bonett_price(first, second)
            covered += share * (interval.low <= won - lost <= interval.high)
    assert 0.93 < covered < 0.98


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
