"""Budgets: exact sums, and blocks that matter more lose less."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.lib.pruning.budgets import DEVIATION, spread_by_importance
from stages.lib.recipes.choosing import spread


@settings(deadline=None)
@given(st.data())
def test_a_budget_is_spread_evenly(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
    k = data.draw(st.integers(0, sum(sizes)))
    parts = spread(k, sizes)
    assert parts.sum() == k
    assert all(0 <= part <= size for part, size in zip(parts, sizes, strict=True))
    assert all(abs(part - k * size / sum(sizes)) < 1 + 1e-6 for part, size in zip(parts, sizes, strict=True))


@settings(deadline=None)
@given(st.data())
def test_blocks_that_matter_more_lose_less(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(10**5, 10**7), min_size=1, max_size=30))
    importance = data.draw(st.lists(st.floats(-5, 5), min_size=len(sizes), max_size=len(sizes)))
    k = data.draw(st.integers(0, sum(sizes)))
    counts = spread_by_importance(k, sizes, importance)
    assert counts.sum() == k
    assert all(0 <= count <= size for count, size in zip(counts, sizes, strict=True))
    sparsities = counts / sizes
    order = np.argsort(importance)
    assert (np.diff(sparsities[order]) <= 2e-5).all()  # but for the rounding to whole weights
    assert sparsities.max() - sparsities.min() <= 2 * DEVIATION + 2e-5


def test_the_formula_of_the_paper() -> None:
    """OWL: shares in an interval of 2 lambda, then moved so that their mean is the density asked for."""
    outliers = np.array([3.0, 1.0, 2.0, 5.0])
    kept = (outliers - outliers.min()) / (outliers.max() - outliers.min()) * 0.08 * 2
    kept = kept - kept.mean() + (1 - 0.7)
    counts = spread_by_importance(2_800_000, [10**6] * 4, outliers.tolist())
    np.testing.assert_allclose(counts / 10**6, 1 - kept, atol=2e-6)


def test_blocks_that_matter_alike_lose_alike() -> None:
    assert spread_by_importance(100, [100, 100], [1.0, 1.0]).tolist() == [50, 50]
