"""How many weights go where: spread evenly, or by how much each block matters, the sum always exact."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

DEVIATION = 0.08
"""How far a block's sparsity may be from the mean, OWL's λ: the paper takes 0.08 for unstructured pruning."""


def spread(k: int, sizes: Sequence[int] | Counts) -> Counts:
    """How many of each part's elements go, k in total. Shape: (parts,).

    Each number is less than one away from k × size / total, whatever the parts are.
    """
    upto = np.cumsum(np.asarray(sizes, dtype=np.int64))
    total = int(upto[-1])
    ends = np.array([k * int(end) // total for end in upto], dtype=np.int64)  # Python's integers do not overflow
    return np.diff(ends, prepend=0)


def spread_by_importance(k: int, sizes: Sequence[int], importance: Sequence[float]) -> Counts:
    """How many of each block's weights go, k in total: the fewer, the more a block matters. Shape: (blocks,).

    Importance is mapped to an interval of twice `DEVIATION`, and a block's sparsity is the mean one less
    what its importance is above the mean: Yin et al. (2024), "Outlier Weighed Layerwise Sparsity (OWL)", ICML.
    Where a sparsity would leave 0 to 1, all deviate by less.
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
