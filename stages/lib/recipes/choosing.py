"""Chooses the smallest scores: below a threshold over all matrices, or within a matrix, each row or each group of M.

A matrix is always given as (outputs, inputs), whichever way the checkpoint stores it.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from stages.lib.files.errors import UserError
from stages.lib.recipes.masks import Mask
from stages.lib.weights.checkpoint import Bits
from stages.lib.weights.structure import Matrix

Scores: TypeAlias = npt.NDArray[Any]
"""Whatever orders the weights, of any type that sorts, without NaN."""

Counts = npt.NDArray[np.int64]

MatrixCounts: TypeAlias = Mapping[str, Sequence[int]]
"""By tensor, how many weights are pruned in each single matrix that it holds."""

BitsOf: TypeAlias = Callable[[str], Iterable[Bits]]
"""By a tensor's name, chunk by chunk, the bits of one float32 per weight, none negative: they order like the floats."""


@dataclass(frozen=True)
class Threshold:
    """A set of smallest floats: all below `bits`, and the first `ties` of those equal to it."""

    bits: int
    """The threshold, as the bits of a float32."""
    ties: int
    """How many floats equal to it are chosen, the first ones in state-dict order."""


def pattern_of(scope: str) -> tuple[int, int] | None:
    """N and M of a scope N:M, None for any other. Raises ValueError unless 0 < N < M."""
    found = re.fullmatch("([0-9]+):([0-9]+)", scope)
    if found is None:
        return None
    n, m = int(found[1]), int(found[2])
    if not 0 < n < m:
        raise ValueError("of M weights N stay, so N is from 1 to below M")
    return n, m


def spread(k: int, sizes: Sequence[int] | Counts) -> Counts:
    """How k is shared among parts: each count is less than one away from k × size / total. Shape: (parts,)."""
    upto = np.cumsum(np.asarray(sizes, dtype=np.int64))
    total = int(upto[-1])
    ends = np.array([k * int(end) // total for end in upto], dtype=np.int64)  # Python's integers do not overflow
    return np.diff(ends, prepend=0)


def shared_by_matrices(block_counts: Sequence[int], blocks: Sequence[Sequence[Matrix]]) -> MatrixCounts:
    """How each block's count is shared among its matrices, and those of its experts, by size."""
    found: dict[str, list[int]] = {}
    for k, matrices in zip(block_counts, blocks, strict=True):
        sizes = [size for matrix in matrices for size in matrix.sizes]
        counts = iter(spread(k, sizes).tolist() if sizes else [])
        found |= {matrix.name: [next(counts) for _ in matrix.sizes] for matrix in matrices}
    return found


def choose(scores: Scores, scope: str, k: int) -> Mask:
    """The mask of the k smallest scores of a matrix: over the whole matrix, or the same share of each row.

    Among equal scores the first are chosen. Raises UserError if M of a scope N:M does not divide the number of
    inputs, and ValueError if N:M does not prune k weights.
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
            f"prune.scope: got '{scope}', but {m} does not divide the {scores.shape[1]} inputs of a matrix; "
            "choose another M"
        )
    groups = scores.reshape(-1, m)
    if k != len(groups) * (m - n):
        raise ValueError(f"{scope} prunes {len(groups) * (m - n)} weights, not {k}")
    return smallest_of_rows(groups, np.full(len(groups), m - n)).reshape(scores.shape)


def choose_in_tensor(matrix: Matrix, scores: Scores, scope: str, counts: Sequence[int]) -> Mask:
    """The mask of a tensor's smallest scores: of each single matrix in it, its count. Raises as `choose` does."""
    mask = np.empty(matrix.shape, dtype=np.bool_)
    for chosen, part, k in zip(matrix.by_output(mask), matrix.by_output(scores), counts, strict=True):
        chosen[...] = choose(part, scope, k)
    return mask


def smallest_of_rows(scores: Scores, counts: Counts) -> Mask:
    """True at each row's `counts` smallest scores; ties go to the first. Shapes: (rows, columns) and (rows,)."""
    ordered = np.sort(scores, axis=1)  # values only: an argsort takes ten times as long
    kth = np.take_along_axis(ordered, np.maximum(counts, 1)[:, None] - 1, axis=1)
    mask: Mask = scores <= kth
    tied = np.flatnonzero(np.count_nonzero(mask, axis=1) != counts)  # rows with more of the k-th than are pruned
    equal = scores[tied] == kth[tied]
    below = mask[tied] & ~equal
    ties = counts[tied] - np.count_nonzero(below, axis=1)
    mask[tied] = below | (equal & (equal.cumsum(axis=1) <= ties[:, None]))
    return mask


def masks_at(
    threshold: Threshold, bits_of: BitsOf, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, Mask]]:
    """Each tensor's mask, in the tensor's shape; True where the weight is pruned.

    Consume the masks in the order of `shapes`: ties are assigned in that order.
    """
    ties_left = threshold.ties
    bound = np.uint32(threshold.bits)
    for name, shape in shapes.items():
        mask = np.empty(prod(shape), dtype=np.bool_)
        start = 0
        for bits in bits_of(name):
            part = mask[start : start + bits.size]
            np.less(bits, bound, out=part)
            if ties_left:
                equal = np.flatnonzero(bits == bound)[:ties_left]
                part[equal] = True
                ties_left -= equal.size
            start += bits.size
        yield name, mask.reshape(shape)
