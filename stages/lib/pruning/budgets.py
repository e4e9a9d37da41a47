"""How many weights each block loses: evenly, or fewer the more a block matters; the sum is always exact."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stages.lib.recipes.choosing import Counts, pattern_of

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Prune

DEVIATION = 0.08
"""The largest deviation of a block's sparsity from the mean, OWL's λ: 0.08 in the paper for unstructured pruning."""


def pruned_count(settings: "Prune", prunable: int) -> int:
    """How many of the prunable weights are pruned."""
    pattern = pattern_of(settings.scope)
    return prunable * (pattern[1] - pattern[0]) // pattern[1] if pattern else round(settings.sparsity * prunable)


def spread_by_importance(k: int, sizes: Sequence[int], importance: Sequence[float]) -> Counts:
    """How many of each block's weights are pruned, k in total: the fewer, the more a block matters. Shape: (blocks,).

    Importance is mapped to an interval of width 2 × `DEVIATION`, and a block's sparsity is the mean sparsity minus
    the excess of its importance over the mean: Yin et al. (2024), "Outlier Weighed Layerwise Sparsity (OWL)", ICML.
    If a sparsity would leave the interval from 0 to 1, all deviations shrink.
    """
    size = np.asarray(sizes, dtype=np.float64)
    matters = np.asarray(importance, dtype=np.float64)
    mean = k / size.sum()
    span = matters.max() - matters.min()
    share = (matters - matters.min()) / span * 2 * DEVIATION if span > 0 else np.zeros_like(size)
    above = share - np.average(share, weights=size)
    limits = [1.0, *(mean / above[above > 0]), *((1 - mean) / -above[above < 0])]
    ends = np.rint(np.cumsum(size * (mean - above * min(limits)))).astype(np.int64)
    ends[-1] = k
    counts: Counts = np.diff(ends, prepend=0)
    return counts
