"""Masks of the smallest scores of each matrix, row or N:M group, where the scores follow from the base or a seed."""

from collections.abc import Iterator, Sequence

import numpy as np

from stages.lib.pruning.budgets import spread
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.recipes.choosing import Scores, choose
from stages.lib.weights.families import Family
from stages.lib.recipes.masks import Mask
from stages.lib.recipes.random_scores import random_scores
from stages.lib.pruning.scopes import PruningMethod


def scoped_masks(
    checkpoint: Checkpoint, family: Family, method: PruningMethod, scope: str, block_counts: Sequence[int], seed: int
) -> Iterator[tuple[str, Mask]]:
    """Each prunable tensor's mask, in state-dict order; each block loses its count of weights.

    Of a block's count each matrix gets its share, and of that each row, or each N:M group. The method
    is magnitude or random, whose masks are the same on every machine.
    """
    number = 0
    for block, k in enumerate(block_counts):
        names = [family.weight(block, matrix) for matrix in family.matrices]
        for name, count in zip(names, spread(k, [checkpoint.size(name) for name in names]), strict=True):
            scores: Scores
            if method == "magnitude":
                scores = np.concatenate(list(checkpoint.magnitudes(name)))
            else:
                scores = random_scores(checkpoint.size(name), seed, number)
            by_output = np.moveaxis(scores.reshape(checkpoint.shape(name)), family.input_axis, 1)
            yield name, np.moveaxis(choose(by_output, scope, int(count)), 1, family.input_axis)
            number += 1
