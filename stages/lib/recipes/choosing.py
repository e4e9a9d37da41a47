"""Chooses the smallest scores of a matrix, within its scope: all of it, each row, or each M beside each other.

A matrix is always given as (outputs, inputs), whichever way its family stores it.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stages.lib.pruning.budgets import spread
from stages.lib.files.errors import UserError
from stages.lib.recipes.masks import Mask
from stages.lib.pruning.scopes import pattern_of

Scores: TypeAlias = npt.NDArray[Any]
"""What orders the weights, of any type that sorts, without NaN."""


def choose(scores: Scores, scope: str, k: int) -> Mask:
    """The mask of the k smallest scores of a matrix: over all of it, or the same share of each row.

    Among equal scores the first ones go. Raises UserError if M of a scope N:M does not divide the
    inputs, and ValueError if k is not what N:M prunes.
    """
    if scope == "layer":
        return smallest_of_rows(scores.reshape(1, -1), np.array([k])).reshape(scores.shape)
    if scope == "row":
        return smallest_of_rows(scores, spread(k, np.full(scores.shape[0], scores.shape[1])))
    pattern = pattern_of(scope)
    if pattern is None:
        raise ValueError(f"{scope} is no scope within a matrix")
    n, m = pattern
    if scores.shape[1] % m:
        raise UserError(
            f"prune.scope: got '{scope}', and a matrix has {scores.shape[1]} inputs, which {m} does not divide"
        )
    groups = scores.reshape(-1, m)
    if k != len(groups) * (m - n):
        raise ValueError(f"{scope} prunes {len(groups) * (m - n)} weights, not {k}")
    return smallest_of_rows(groups, np.full(len(groups), m - n)).reshape(scores.shape)


def smallest_of_rows(scores: Scores, counts: npt.NDArray[np.int64]) -> Mask:
    """True at each row's `counts` smallest scores; among equal ones the first go.

    Shapes: (rows, columns) and (rows,).
    """
    ordered = np.sort(scores, axis=1)  # values only: an argsort takes ten times as long
    kth = np.take_along_axis(ordered, np.maximum(counts, 1)[:, None] - 1, axis=1)
    mask: Mask = scores <= kth
    tied = np.flatnonzero(np.count_nonzero(mask, axis=1) != counts)  # rows with more of the k-th than go
    equal = scores[tied] == kth[tied]
    below = mask[tied] & ~equal
    ties = counts[tied] - np.count_nonzero(below, axis=1)
    mask[tied] = below | (equal & (equal.cumsum(axis=1) <= ties[:, None]))
    return mask
