"""What a family module has to say about an architecture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Family:
    """Where the blocks of an architecture are, and which matrices in them are prunable."""

    model_type: str
    """`model_type` in `config.json`."""
    depth_key: str
    """The key of `config.json` that holds the number of blocks."""
    block: str
    """The prefix of a block's tensors, with `{}` for its number."""
    matrices: tuple[str, ...]
    """The weight matrices in a block, in state-dict order. Norms and biases are not among them."""

    def prunable(self, config: Mapping[str, Any]) -> list[str]:
        """The names of all prunable tensors, in state-dict order."""
        return [
            f"{self.block.format(number)}.{matrix}.weight"
            for number in range(int(config[self.depth_key]))
            for matrix in self.matrices
        ]
