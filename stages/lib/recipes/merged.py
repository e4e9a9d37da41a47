"""Merges the feed-forwards of blocks: neurons aligned with the first block's, then averaged.

A block's neurons may be put in any order without changing what it computes, so equal neurons of
two blocks need not stand in the same place. They are matched by the assignment that maximizes the
sum of correlations of their pre-activations (Hungarian algorithm, Kuhn 1955), as in Verma &
Elbayad, "Merging Feed-Forward Sublayers for Compressed Transformers" (2025).
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from scipy.optimize import linear_sum_assignment

from stages.lib.files.errors import UserError
from stages.lib.weights.families import Family, FeedForward
from stages.lib.recipes.recipe import PERMUTATIONS, MergedFeedForward
from stages.lib.shrinking.variants import block_groups

Permutation = npt.NDArray[np.uint16]
"""Which of a block's neurons goes to each place. Shape: (neurons,)."""
Permutations = Mapping[int, Permutation]
"""By block; a group's first block, which stays as it is, has none."""
Activations = npt.NDArray[np.float32]


def feed_forward_of(family: Family) -> FeedForward:
    """What a family says about its feed-forward. Raises UserError if it says nothing."""
    if family.feed_forward is None:
        raise UserError(
            f"the family {family.model_type} describes no feed-forward that can be merged; "
            "take merged_* out of compare.variants in params.yaml"
        )
    return family.feed_forward


def standardize(activations: Activations) -> None:
    """Give each row mean 0 and length 1, in place, so that products of rows are correlations.

    A row that is constant correlates with nothing: it becomes 0.
    """
    activations -= activations.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(activations, axis=1, keepdims=True)
    activations /= np.where(lengths > 0, lengths, 1)


def match(first: Sequence[Activations], other: Sequence[Activations]) -> Permutation:
    """Match another block's neurons to a first block's by the correlations of their activations.

    Takes, for each kind of pre-activation, standardized arrays of shape (neurons, tokens) of both
    blocks. A gated feed-forward has two kinds, whose correlations add up: they move together.
    """
    correlations = np.sum([ours @ theirs.T for ours, theirs in zip(first, other, strict=True)], axis=0)
    _, columns = linear_sum_assignment(correlations, maximize=True)
    assert len(columns) <= 1 << 16, "more neurons than a uint16 numbers"
    return columns.astype(np.uint16)


def merge(
    weights: dict[str, torch.Tensor], family: Family, depth: int, n: int, anchor_only: bool, permutations: Permutations
) -> str:
    """Replace the feed-forwards in `weights`, in place; the SHA-256 of the averages.

    Sums are made in float64 and rounded once, so equal feed-forwards average to themselves, and
    the averages are the same on every machine.
    """
    digest = hashlib.sha256()
    axes = feed_forward_of(family).neuron_axes
    for group in block_groups(depth, n):
        for tensor, axis in axes.items():
            names = [family.inside(block, tensor) for block in group]
            if len(group) == 1 or names[0] not in weights:
                continue
            total = torch.zeros(weights[names[0]].shape, dtype=torch.float64)
            for name, block in zip(names, group, strict=True):
                total += _permuted(weights[name], axis, permutations.get(block))
            average = (total / len(group)).to(weights[names[0]].dtype)
            digest.update(average.contiguous().view(torch.uint8).numpy().data)
            for name in names[:1] if anchor_only else names:
                weights[name] = average
    return digest.hexdigest()


def _permuted(tensor: torch.Tensor, axis: int | None, permutation: Permutation | None) -> torch.Tensor:
    if axis is None or permutation is None:
        return tensor
    return tensor.index_select(axis, torch.from_numpy(permutation.astype(np.int64)))


def write_permutations(permutations: Permutations, folder: Path) -> None:
    """Write permutations into a recipe's folder."""
    save_file({str(block): permutation for block, permutation in permutations.items()}, folder / PERMUTATIONS)


def neurons_of(family: Family, weights: Mapping[str, torch.Tensor]) -> int:
    """How many neurons the feed-forward of a block has."""
    first = feed_forward_of(family).pre_activations[0]
    axis = feed_forward_of(family).neuron_axes[f"{first}.weight"]
    assert axis is not None
    return int(weights[family.weight(0, first)].shape[axis])


def read_permutations(folder: Path, recipe: MergedFeedForward, depth: int, neurons: int) -> dict[int, Permutation]:
    """Read a recipe's permutations. Raises UserError if they are not those of the recipe's blocks."""
    path = folder / PERMUTATIONS
    try:
        read = {int(block): permutation for block, permutation in load_file(path).items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); `python -m stages.verify` tells how to mend it") from None
    wanted = {block for group in block_groups(depth, recipe.n) for block in group[1:]}
    whole = all(np.array_equal(np.sort(order), np.arange(neurons)) for order in read.values())
    if set(read) != wanted or not whole:
        raise UserError(f"{path}: not the permutations of this recipe; `python -m stages.verify` tells how to mend it")
    return read
