"""Parameter counts, over a checkpoint in which a tied tensor is stored once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.recipes.masks import Mask
from stages.lib.recipes.recipe import Changed, Pruned, Recipe, pruned_masks, unchanged


@dataclass(frozen=True)
class Counts:
    """How many parameters a checkpoint has, and how many of them are zero before any pruning."""

    total: int
    prunable: int
    zeros: int
    """Zeros among all parameters."""

    def effective(self, pruned: int, already_zero: int) -> int:
        """Non-zero parameters once `pruned` weights are masked, `already_zero` of which were zero before."""
        return self.total - self.zeros - (pruned - already_zero)


def count_zeros(checkpoint: Checkpoint) -> dict[str, int]:
    """How many entries of each tensor are zero; one pass over the weights."""
    return {
        name: sum(bits.size - int(np.count_nonzero(bits)) for bits in checkpoint.magnitudes(name))
        for name in checkpoint.names
    }


def count_masked(checkpoint: Checkpoint, masks: Iterable[tuple[str, Mask]]) -> tuple[int, int]:
    """How many weights of a checkpoint some masks prune, and how many of those are zero already."""
    pruned = already_zero = 0
    for name, mask in masks:
        start = 0
        flat = mask.reshape(-1)
        for bits in checkpoint.magnitudes(name):
            already_zero += int(np.count_nonzero(flat[start : start + bits.size] & (bits == 0)))
            start += bits.size
        pruned += int(np.count_nonzero(mask))
    return pruned, already_zero


def count_pruned(recipe: Recipe, folder: Path, checkpoint: Checkpoint, counts: Counts) -> tuple[int, int]:
    """How many weights the recipe in a folder prunes, and how many parameters are not zero then.

    Raises UserError if the recipe's files are not what it says.
    """
    chosen = unchanged(recipe)
    assert isinstance(chosen, Pruned), f"{chosen.kind} prunes nothing"
    pruned, already_zero = count_masked(checkpoint, pruned_masks(chosen, folder, checkpoint))
    if not isinstance(recipe, Changed):
        return pruned, counts.effective(pruned, already_zero)
    from stages.lib.recipes.materialize import materialize  # a change may add up to zero, so the result is counted

    return pruned, materialize(checkpoint, folder).effective_parameters()


def count(checkpoint: Checkpoint, prunable: Sequence[str]) -> Counts:
    """Count the parameters of a checkpoint; one pass over the weights, for their zeros."""
    zeros = count_zeros(checkpoint)
    return Counts(
        total=sum(checkpoint.size(name) for name in checkpoint.names),
        prunable=sum(checkpoint.size(name) for name in prunable),
        zeros=sum(zeros.values()),
    )
