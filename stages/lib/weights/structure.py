"""The structure of a checkpoint: its blocks, their matrices and neurons, and the tensors that are left out."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeVar, cast

Values = TypeVar("Values", bound=Any)
"""An array of numpy or a tensor of torch."""


@dataclass(frozen=True)
class Matrix:
    """A prunable tensor of the checkpoint: one matrix, or one per expert."""

    name: str
    shape: tuple[int, ...]
    """Of three axes if the tensor holds several experts, which the first axis numbers."""
    input_axis: int
    """The axis along which the inputs lie: the last one for `Linear`, the one before it for `Conv1D`."""
    kind: str
    """Its name in the block, the same in all blocks and, with `*` in place of their numbers, for all experts."""
    layer: str
    """The module that multiplies with it."""
    parameter: str
    """The module's parameter that holds it, alone or with other matrices."""
    of_experts: bool
    expert: int
    """The number of its expert, or of the first one; 0 if it belongs to none."""

    @property
    def size(self) -> int:
        return prod(self.shape)

    @property
    def experts(self) -> range:
        """The numbers of the experts whose matrices the tensor holds, or of the one matrix of a layer without."""
        return range(self.expert, self.expert + len(self.sizes))

    @property
    def sizes(self) -> list[int]:
        """The number of weights of each single matrix in the tensor."""
        count = self.shape[0] if len(self.shape) == 3 else 1
        return [self.size // count] * count

    def by_output(self, values: Values) -> Values:
        """A view of values in the tensor's shape, as (matrices, outputs, inputs)."""
        matrices: Values = values if values.ndim == 3 else values[None]
        return matrices if self.input_axis == len(self.shape) - 1 else cast(Values, matrices.swapaxes(1, 2))


@dataclass(frozen=True)
class NeuronTensor:
    """A tensor of a feed-forward, and where its neurons lie."""

    name: str
    axis: int | None
    """None if the tensor has no neurons: the bias of the second layer."""
    parts: int = 1
    """How many times the axis goes through all neurons: twice where gate and up are fused."""


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward of a block as neurons: their pre-activations, and the tensors that belong to them."""

    pre_activations: tuple[tuple[str, int], ...]
    """The modules whose outputs tell neurons apart, and their outputs per neuron: two where gate and up are fused."""
    neurons: int
    tensors: tuple[NeuronTensor, ...]
    """Permuting the neurons along all axes at once leaves the block's output as it is."""


@dataclass(frozen=True)
class Structure:
    """What a checkpoint holds, under the names of its files. A tied head has no tensor of its own."""

    model_type: str
    """`model_type` in `config.json`."""
    depth_key: str
    """The key of `config.json` that holds the number of blocks."""
    block_list: str
    """The list of blocks in the module tree."""
    tensors: Mapping[str, tuple[int, ...]]
    """The shape of each tensor, in state-dict order."""
    blocks: tuple[tuple[str, ...], ...]
    """By block, the names of its tensors."""
    matrices: tuple[tuple[Matrix, ...], ...]
    """By block, its prunable tensors, in state-dict order."""
    left_out: Mapping[str, str]
    """By name, why a tensor is not prunable."""
    embedding: str
    head: str
    """The name of the head's tensor, or the one it would have if it were not the embedding."""
    feed_forwards: tuple[FeedForward, ...]
    """By block; none at all where `unmerged` says why feed-forwards cannot be merged."""
    unmerged: str = ""

    @property
    def depth(self) -> int:
        """The number of blocks."""
        return len(self.blocks)

    @property
    def all_matrices(self) -> list[Matrix]:
        """The prunable tensors of all blocks, in state-dict order."""
        return [matrix for block in self.matrices for matrix in block]

    @property
    def tied(self) -> bool:
        """Whether the head is the token embedding."""
        return self.head not in self.tensors

    @cached_property
    def prunable(self) -> list[str]:
        """The names of all prunable tensors, in state-dict order."""
        return self.weights(range(self.depth))

    @property
    def kinds(self) -> dict[str, list[str]]:
        """By kind of matrix, the names of its tensors in all blocks, in the order of their first occurrence."""
        found: dict[str, list[str]] = {}
        for matrix in self.all_matrices:
            found.setdefault(matrix.kind, []).append(matrix.name)
        return found

    def weights(self, blocks: Iterable[int]) -> list[str]:
        """The names of the prunable tensors of some blocks, in state-dict order."""
        return [matrix.name for block in blocks for matrix in self.matrices[block]]

    def module(self, block: int) -> str:
        """The name of a block in the module tree."""
        return f"{self.block_list}.{block}"
