"""Masks of pruned weights, recomputed from the base weights and a threshold."""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.pruning.selection import Threshold

Mask = npt.NDArray[np.bool_]


def magnitude_masks(checkpoint: Checkpoint, names: Sequence[str], threshold: Threshold) -> Iterator[tuple[str, Mask]]:
    """Each named tensor's mask, in the tensor's shape; True where the weight is pruned.

    The masks have to be taken in the order of `names`: ties are given out in it.
    """
    ties_left = threshold.ties
    bound = np.uint32(threshold.bits)
    for name in names:
        mask = np.empty(checkpoint.size(name), dtype=np.bool_)
        start = 0
        for bits in checkpoint.magnitudes(name):
            part = mask[start : start + bits.size]
            np.less(bits, bound, out=part)
            if ties_left:
                equal = np.flatnonzero(bits == bound)[:ties_left]
                part[equal] = True
                ties_left -= equal.size
            start += bits.size
        yield name, mask.reshape(checkpoint.shape(name))


class MaskDigest:
    """The SHA-256 of a sequence of masks: each one's bits packed, first element in the highest bit."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.pruned = 0
        """How many weights the masks so far prune."""

    def add(self, mask: Mask) -> npt.NDArray[np.uint8]:
        """Take in one more mask; its packed bits."""
        packed = np.packbits(mask.reshape(-1))
        self._hash.update(packed.data)
        self.pruned += int(np.count_nonzero(mask))
        return packed

    def hexdigest(self) -> str:
        return self._hash.hexdigest()
