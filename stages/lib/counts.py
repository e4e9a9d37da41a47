"""Parameter counts, over a checkpoint in which a tied tensor is stored once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stages.lib.checkpoint import Checkpoint


@dataclass(frozen=True)
class Counts:
    """How many parameters a checkpoint has, and how many of them are zero before any pruning."""

    total: int
    prunable: int
    zeros: int
    """Zeros among all parameters."""
    prunable_zeros: int

    def effective(self, pruned: int) -> int:
        """Non-zero parameters once the `pruned` smallest prunable magnitudes are masked.

        Weights that were zero already are the smallest of all, so they are masked first.
        """
        newly_zero = max(0, pruned - self.prunable_zeros)
        return self.total - self.zeros - newly_zero


def count_zeros(checkpoint: Checkpoint) -> dict[str, int]:
    """How many entries of each tensor are zero; one pass over the weights."""
    return {
        name: sum(bits.size - int(np.count_nonzero(bits)) for bits in checkpoint.magnitudes(name))
        for name in checkpoint.names
    }


def count(checkpoint: Checkpoint, prunable: Sequence[str]) -> Counts:
    """Count the parameters of a checkpoint; one pass over the weights, for their zeros."""
    zeros = count_zeros(checkpoint)
    return Counts(
        total=sum(checkpoint.size(name) for name in checkpoint.names),
        prunable=sum(checkpoint.size(name) for name in prunable),
        zeros=sum(zeros.values()),
        prunable_zeros=sum(zeros[name] for name in prunable),
    )
