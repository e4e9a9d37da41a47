"""Starts a forward pass at any block, from that block's input in the unchanged model.

If only one block is changed, the blocks before it compute the same as before. Each block's input is therefore kept
from one pass, and later passes over the same batches skip the blocks before the changed one.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class BlockInputs:
    """The input of each block, batch by batch, in one pass over some text."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self._blocks = blocks
        self._kept: list[list[torch.Tensor]] = [[] for _ in blocks]

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the blocks' inputs during the `with` block."""

        def keep(kept: list[torch.Tensor]) -> Any:
            return lambda module, arguments: kept.append(arguments[0])

        hooks = [
            block.register_forward_pre_hook(keep(kept)) for block, kept in zip(self._blocks, self._kept, strict=True)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @contextmanager
    def resumed(self, first: int) -> Iterator[None]:
        """Start each pass at block `first`, with the recorded batches in their order."""
        batches = iter(self._kept[first])
        hook = self._blocks[first].register_forward_pre_hook(lambda module, arguments: (next(batches), *arguments[1:]))
        for block in self._blocks[:first]:
            block.forward = _pass_on
        try:
            yield
        finally:
            hook.remove()
            for block in self._blocks[:first]:
                del block.forward


def _pass_on(hidden_states: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
    return hidden_states
