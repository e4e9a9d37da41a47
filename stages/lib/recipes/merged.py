"""Merged feed-forwards (`merged_n`): permutations are stored, the averages follow from them and the base.

A block's neurons may be reordered without changing what the block computes, so equal neurons of two blocks need not
be in the same place. The neurons of each block in a group are first put in the order of the group's first block
(stages/lib/shrinking/matching.py finds that order), then averaged.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest, Materialized, OverBase
from stages.lib.weights.structure import NeuronTensor, Structure

if TYPE_CHECKING:
    import torch

PERMUTATIONS = "permutations.safetensors"

Permutation = npt.NDArray[np.uint16]
"""For each place, the number of the neuron that is moved there. Shape: (neurons,)."""
Permutations = Mapping[int, Permutation]
"""By block; a group's first block, which stays as it is, has none."""


class MergedFeedForward(OverBase):
    """The base with the feed-forwards of each group of n blocks aligned, by stored permutations, and averaged."""

    kind: Literal["merged"] = "merged"
    base_sha256: Digest
    n: Annotated[int, Field(ge=1)]
    anchor_only: bool
    """Whether only a group's first block uses the average, or all of them."""
    merged_sha256: Digest
    """Of the averaged tensors, group by group, in state-dict order."""

    @property
    def files(self) -> frozenset[str]:
        return frozenset({PERMUTATIONS})

    def apply(self, model: Materialized, folder: Path) -> None:
        path = folder / PERMUTATIONS
        try:
            permutations = {int(block): permutation for block, permutation in load_file(path).items()}
            merged = merge(model.weights, model.structure, self.n, self.anchor_only, permutations)
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"{path}: damaged ({error}); `python -m stages.verify` prints the fix") from None
        if merged != self.merged_sha256:
            raise UserError(f"{folder}: the average is not the recipe's; `python -m stages.verify` prints the fix")


def block_groups(depth: int, n: int) -> list[range]:
    """The blocks in groups of n consecutive ones; the last group may be shorter."""
    return [range(start, min(start + n, depth)) for start in range(0, depth, n)]


def merge(
    weights: "dict[str, torch.Tensor]", structure: Structure, n: int, anchor_only: bool, permutations: Permutations
) -> str:
    """Replace the feed-forwards in `weights`, in place; returns the SHA-256 of the averages.

    Sums are computed in float64 and rounded once, so equal feed-forwards average to themselves, and the averages
    are the same on every machine.
    """
    import torch

    digest = hashlib.sha256()
    for group in block_groups(structure.depth, n):
        if len(group) == 1:
            continue
        for tensors in zip(*(structure.feed_forwards[block].tensors for block in group), strict=True):
            names = [tensor.name for tensor in tensors]
            total = torch.zeros(weights[names[0]].shape, dtype=torch.float64)
            for tensor, block in zip(tensors, group, strict=True):
                total += _permuted(weights[tensor.name], tensor, permutations.get(block))
            average = (total / len(group)).to(weights[names[0]].dtype)
            digest.update(average.contiguous().view(torch.uint8).numpy().data)
            for name in names[:1] if anchor_only else names:
                weights[name] = average
    return digest.hexdigest()


def _permuted(weight: "torch.Tensor", tensor: NeuronTensor, permutation: Permutation | None) -> "torch.Tensor":
    import torch

    if tensor.axis is None or permutation is None:
        return weight
    neurons = weight.shape[tensor.axis] // tensor.parts
    if permutation.shape != (neurons,) or permutation.max() >= neurons:
        raise ValueError("a permutation does not fit its block")
    order = permutation.astype(np.int64)
    through_all = np.concatenate([order + part * neurons for part in range(tensor.parts)])
    return weight.index_select(tensor.axis, torch.from_numpy(through_all))


def write_permutations(permutations: Permutations, folder: Path) -> None:
    """Write permutations into a recipe's folder."""
    save_file({str(block): permutation for block, permutation in permutations.items()}, folder / PERMUTATIONS)
