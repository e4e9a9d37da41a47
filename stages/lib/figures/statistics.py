"""Intervals and paired tests over items: 95 %, seeded.

Every figure is a ratio of sums over items: log-likelihoods to tokens, scores to documents, hits to examples. So is the
change from one model to another on the same items. A bootstrap resample is therefore a count of draws per item, and
the sums of all models and changes over all resamples are one matrix product.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
_COUNTS_AT_ONCE = 1 << 22
"""The most counts or signs of a resampling that are held at once: 32 MiB."""
_NO_SPREAD = 1e-20
"""A sum of squared deviations below this share of the sum of squares is rounding."""
_BOOTSTRAP, _SIGNS = 1, 2
"""Added to the seed, so that resamples are independent of each other and of the splits, which are drawn by the seed."""

Values = npt.NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float


class PValue(NamedTuple):
    value: float
    bound: bool = False
    """Whether the test's resamples allow no smaller value, so that the true one may be smaller."""


def ratio_intervals(values: Values, weights: Values, resamples: int, seed: int) -> list[Interval | None]:
    """The bootstrap-t interval of each sum(values) / sum(weights) over the same items (Efron & Tibshirani 1993, 12.5).

    Shapes: `values` (ratios, items), `weights` (items,). The standard error is that of the linearized ratio. On
    either side the interval reaches at least as far as Student's: a bootstrap of few items that differ, and as often
    in one direction as in the other, is too sure. None where nothing can be said: for a single item, for items that do
    not differ, and where so many resamples lack any spread that an end would be infinite.
    """
    from scipy import stats

    ratios = values.sum(axis=1) / weights.sum()
    deviations = values - ratios[:, None] * weights
    squares = (deviations**2).sum(axis=1)
    low, high = np.quantile(
        _t_values(deviations, weights, resamples, seed),
        [(1 - LEVEL) / 2, (1 + LEVEL) / 2],
        axis=1,
        method="inverted_cdf",  # draws may be infinite, so none are averaged
    )
    items = len(weights)
    student = stats.t.ppf((1 + LEVEL) / 2, items - 1) * math.sqrt(items / max(1, items - 1))
    low, high = np.minimum(low, -student), np.maximum(high, student)
    known = np.isfinite(low) & np.isfinite(high) & (squares > _NO_SPREAD * (values**2).sum(axis=1))
    ends = zip(known, ratios, np.sqrt(squares) / weights.sum(), low, high, strict=True)
    return [
        Interval(float(ratio - highest * error), float(ratio - lowest * error)) if there else None
        for there, ratio, error, lowest, highest in ends
    ]


def _t_values(deviations: Values, weights: Values, resamples: int, seed: int) -> Values:
    """Each resample's deviation from the ratio in units of its own standard error. Shape: (ratios, resamples)."""
    items = len(weights)
    columns = np.vstack([deviations, deviations**2, deviations * weights, weights, weights**2]).T
    generator = np.random.default_rng([seed, _BOOTSTRAP])
    step, even = max(1, _COUNTS_AT_ONCE // items), np.full(items, 1 / items)
    sums = []
    for start in range(0, resamples, step):
        counts = generator.multinomial(items, even, size=min(step, resamples - start))  # how often each item is drawn
        sums.append(counts.astype(np.float64) @ columns)
    *parts, weight, weight_squares = np.concatenate(sums).T
    shifts, squares, products = np.split(np.array(parts), 3)
    shifts = shifts / weight
    variances = squares - 2 * shifts * products + shifts**2 * weight_squares
    flat = variances <= _NO_SPREAD**0.5 * squares  # sums that cancel leave more rounding than a sum of squares does
    errors = np.sqrt(np.where(flat, 1, variances)) / weight
    t_values: Values = np.where(flat, np.copysign(np.inf, shifts), shifts / errors)
    return t_values


def paired_p(differences: Values, resamples: int, seed: int) -> PValue:
    """The two-sided p-value of the sum of paired differences, if each might as well have the other sign (Fisher 1935).

    Shape: (items,). Exact over all signs if they are no more than `resamples`, which is 2 / 2ⁿ at least for n items
    that differ; otherwise over signs drawn by the seed, and 2 / (resamples + 1) at least.
    """
    from scipy import stats

    differing = differences[differences != 0]
    if len(differing) < 2:
        return PValue(1.0)
    found = stats.permutation_test(
        (differing,),
        np.sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _COUNTS_AT_ONCE // len(differing)),
        rng=np.random.default_rng([seed, _SIGNS]),
    )
    p, sampled = float(found.pvalue), 2 ** len(differing) > resamples
    return PValue(p, bound=sampled and bool(np.isclose(p, 2 / (resamples + 1))))


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    from scipy import stats

    return Interval(*stats.binomtest(successes, trials).proportion_ci(LEVEL, method="wilson"))


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The exact p-value of McNemar's test (1947) for two models, given whether each was right on each example."""
    from scipy import stats

    only_first, only_second = _disagreements(first, second)
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def bonett_price(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> Interval:
    """The interval of the second model's share of right examples minus the first's, paired (Bonett & Price 2012)."""
    from scipy import stats

    one, other = ((count + 1) / (len(first) + 2) for count in _disagreements(first, second))
    reach = stats.norm.ppf((1 + LEVEL) / 2) * np.sqrt((one + other - (one - other) ** 2) / (len(first) + 2))
    return Interval(float(other - one - reach), float(other - one + reach))


def _disagreements(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """On how many examples only the first model was right, and only the second."""
    return int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) of p-values tested together, in their order."""
    order = np.argsort(p_values, kind="stable")
    ranked = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(ranked))
    return [float(value) for value in adjusted]
