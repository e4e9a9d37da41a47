"""Spreads a number of weights to prune over parts, so that each gets its share and the sum is exact."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def spread(k: int, sizes: Sequence[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many of each part's elements go, k in total. Shape: (parts,).

    Each number is less than one away from k × size / total, whatever the parts are.
    """
    upto = np.cumsum(np.asarray(sizes, dtype=np.int64))
    total = int(upto[-1])
    ends = np.array([k * int(end) // total for end in upto], dtype=np.int64)  # Python's integers do not overflow
    return np.diff(ends, prepend=0)
