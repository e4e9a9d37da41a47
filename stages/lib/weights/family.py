"""How a model family is described: where an architecture keeps its blocks, matrices and neurons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FeedForward:
    """The feed-forward of a block as neurons: their pre-activations, and the weights that belong to them."""

    pre_activations: tuple[str, ...]
    """The layers in a block whose outputs, one per neuron, tell neurons apart."""
    neuron_axes: Mapping[str, int | None]
    """All its tensors, by name in the block, and the axis along which neurons lie, None if there is none.

    Permuting the neurons along all axes at once leaves the block's output as it is.
    """


@dataclass(frozen=True)
class Family:
    """Where the blocks of an architecture are, and which weights in them can be pruned or merged."""

    model_type: str
    """`model_type` in `config.json`."""
    depth_key: str
    """The key of `config.json` that holds the number of blocks."""
    block: str
    """The prefix of a block's tensors, with `{}` for its number."""
    matrices: tuple[str, ...]
    """The weight matrices in a block, in state-dict order. Norms and biases are not among them."""
    embedding: str
    """The token embedding's tensor; a tied head has no other."""
    input_axis: int = 1
    """The axis of a matrix along which its inputs lie: 1 for `Linear`, 0 for `Conv1D`."""
    feed_forward: FeedForward | None = None
    """None where the neurons of a block are not simply those of one feed-forward."""

    def depth(self, config: Mapping[str, Any]) -> int:
        """The number of blocks."""
        return int(config[self.depth_key])

    def inside(self, block: int, name: str) -> str:
        """The full name of a layer or tensor that has this name in a block."""
        return f"{self.block.format(block)}.{name}"

    def weight(self, block: int, matrix: str) -> str:
        """The name of one matrix of one block."""
        return self.inside(block, f"{matrix}.weight")

    def weights(self, blocks: Iterable[int]) -> list[str]:
        """The names of all matrices of some blocks, in state-dict order."""
        return [self.weight(block, matrix) for block in blocks for matrix in self.matrices]
