"""Selects exactly k of the smallest magnitudes, or scores, over all matrices at once, without sorting.

Two counting passes find the k-th smallest: the first counts floats by the upper half of their bits, the second counts
those in the k-th's bucket by the lower half. Both go through the weights chunk by chunk.
"""

from collections.abc import Sequence

import numpy as np

from stages.lib.files.errors import UserError
from stages.lib.recipes.choosing import BitsOf, Counts, Threshold
from stages.lib.weights.checkpoint import Checkpoint

_INFINITY = 0x7F80
"""The upper half of an infinite float32's magnitude; NaNs have it too, or come after it."""


def select(checkpoint: Checkpoint, names: Sequence[str], k: int) -> Threshold:
    """Find the threshold that selects exactly k weights of the named tensors, the smallest, as `threshold_of` does.

    Raises UserError if a weight is NaN or infinite, and ValueError unless 0 <= k <= their number.
    """
    try:
        return threshold_of(checkpoint.magnitudes, names, k)
    except FloatingPointError as error:
        raise UserError(f"{checkpoint.path}: {error} holds NaN or infinite weights; repair the model first") from None


def threshold_of(bits_of: BitsOf, names: Sequence[str], k: int) -> Threshold:
    """Find the threshold that selects exactly k of the floats of the named tensors, the smallest.

    Among equal ones the first in the order of `names`, then of elements, are selected. Raises FloatingPointError with
    the tensor's name if one is NaN or infinite, and ValueError unless 0 <= k <= their number.
    """
    high = _count_high(bits_of, names)
    if not 0 <= k <= int(high.sum()):
        raise ValueError(f"k = {k} of {int(high.sum())} weights")
    if k == 0:
        return Threshold(bits=0, ties=0)
    bucket, before = _bucket(high, k)
    low = _count_low(bits_of, names, bucket)
    bits, ties = _bucket(low, k - before)
    return Threshold(bits=bucket << 16 | bits, ties=k - before - ties)


def _bucket(counts: Counts, k: int) -> tuple[int, int]:
    """The bucket that holds the k-th smallest, and how many lie in the buckets before it."""
    upto = np.cumsum(counts)
    bucket = int(np.searchsorted(upto, k))
    return bucket, int(upto[bucket] - counts[bucket])


def _count_high(bits_of: BitsOf, names: Sequence[str]) -> Counts:
    counts = np.zeros(1 << 15, dtype=np.int64)
    for name in names:
        for bits in bits_of(name):
            counts += np.bincount(bits >> np.uint32(16), minlength=counts.size)
        if counts[_INFINITY:].any():
            raise FloatingPointError(name)
    return counts


def _count_low(bits_of: BitsOf, names: Sequence[str], bucket: int) -> Counts:
    counts = np.zeros(1 << 16, dtype=np.int64)
    for name in names:
        for bits in bits_of(name):
            inside = bits[bits >> np.uint32(16) == bucket]
            counts += np.bincount(inside & np.uint32(0xFFFF), minlength=counts.size)
    return counts
