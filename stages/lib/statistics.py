"""Intervals and paired tests over items: 95 %, seeded, by scipy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 22
"""Bounds the memory of a bootstrap, in resampled items."""

Values = npt.NDArray[np.float64]
Statistic = Callable[..., Any]


@dataclass(frozen=True)
class Interval:
    low: float
    high: float


def bootstrap(statistic: Statistic, columns: tuple[Values, ...], resamples: int, seed: int) -> Interval | None:
    """Percentile bootstrap over items (Efron 1979): rows of `columns` are drawn together.

    `statistic` takes the columns and an `axis`. With fewer than two items there is no interval.
    """
    items = len(columns[0])
    if items < 2:
        return None
    result = stats.bootstrap(
        columns,
        statistic,
        n_resamples=resamples,
        batch=max(1, _DRAWS_AT_ONCE // items),
        paired=len(columns) > 1,
        vectorized=True,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return Interval(float(result.confidence_interval.low), float(result.confidence_interval.high))


def wilson(successes: int, trials: int) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927)."""
    interval = stats.binomtest(successes, trials).proportion_ci(LEVEL, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def mcnemar(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """The exact p-value of McNemar's test (1947): do two models err on the same examples?

    Takes whether each example was right, for both. Without any disagreement the p-value is 1.
    """
    only_first = int(np.count_nonzero(first & ~second))
    only_second = int(np.count_nonzero(second & ~first))
    if only_first + only_second == 0:
        return 1.0
    return float(stats.binomtest(only_first, only_first + only_second).pvalue)
