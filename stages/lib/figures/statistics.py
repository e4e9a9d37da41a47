"""Intervals and paired tests over items: 95 %, seeded, for all models at once.

Every figure is a ratio of sums over items: log-likelihoods to tokens, scores to documents, hits to examples. A
bootstrap resample is therefore a count of draws per item, and the sums of all models over all resamples are one
matrix product. The models share the draws, which pairs them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
_COUNTS_AT_ONCE = 1 << 22
"""The most counts of a bootstrap that are held at once: 32 MiB."""

Values = npt.NDArray[np.float64]


class Interval(NamedTuple):
    low: float
    high: float


def resampled_ratios(values: Values, weights: Values, resamples: int, seed: int) -> Values:
    """sum(values) / sum(weights) in each of the bootstrap's resamples of the items (Efron 1979).

    Shapes: `values` (models, items), `weights` (items,), the result (models, resamples).
    """
    items = len(weights)
    generator, columns = np.random.default_rng(seed), np.vstack([values, weights]).T
    step, even = max(1, _COUNTS_AT_ONCE // items), np.full(items, 1 / items)
    sums = []
    for start in range(0, resamples, step):
        counts = generator.multinomial(items, even, size=min(step, resamples - start))  # how often each item is drawn
        sums.append(counts.astype(np.float64) @ columns)
    both = np.concatenate(sums).T
    ratios: Values = both[:-1] / both[-1]
    return ratios


def percentile_interval(draws: Values) -> Interval:
    """The bootstrap's percentile interval of one statistic. Shape of `draws`: (resamples,)."""
    return Interval(*map(float, np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))


def paired_p(differences: Values) -> float:
    """The two-sided p-value of a difference, from its bootstrap draws; at least 2 / (resamples + 1).

    It is the level at which the percentile interval begins to contain 0 (Efron & Tibshirani 1993, ch. 15).
    """
    fewer = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (int(fewer) + 1) / (len(differences) + 1))


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    from scipy import stats

    return Interval(*stats.binomtest(successes, trials).proportion_ci(LEVEL, method="wilson"))


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The exact p-value of McNemar's test (1947) for two models, given whether each was right on each example."""
    from scipy import stats

    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979) of p-values tested together, in their order."""
    order = np.argsort(p_values, kind="stable")
    ranked = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(ranked))
    return [float(value) for value in adjusted]
