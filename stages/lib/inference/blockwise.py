"""Passes through a model block by block, and passes that start at a block."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from tqdm import tqdm

from stages.lib.inference.loading import Loaded

_Call: TypeAlias = tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]
"""A block's input, and its other arguments, positional and named."""


class _Caught(Exception):  # noqa: N818 - no error: it ends a pass whose purpose is fulfilled
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call


@torch.no_grad()
def through_blocks(
    loaded: Loaded, windows: Sequence[torch.Tensor]
) -> Iterator[tuple[nn.Module, Callable[[], list[torch.Tensor]]]]:
    """Each block, in order, with a function that runs it on all windows, so that hooks see its activations.

    Each block reads the output of those before it, so changes made to a block before the iterator advances are visible
    to the blocks after it, and only one block's activations are held at a time. SparseGPT (Frantar & Alistarh, 2023)
    and Wanda (Sun et al., 2024) do the same.
    """
    blocks = loaded.blocks
    calls = [_first_call(loaded, blocks[0], window) for window in windows]
    for number, block in enumerate(tqdm(blocks, unit="block", desc="blocks")):
        yield block, partial(_run, block, calls)
        if number < len(blocks) - 1:
            outputs = _run(block, calls)
            calls = [(states, others, named) for states, (_, others, named) in zip(outputs, calls, strict=True)]


def _run(block: nn.Module, calls: Sequence[_Call]) -> list[torch.Tensor]:
    return [block(states, *others, **named) for states, others, named in calls]


def _first_call(loaded: Loaded, first: nn.Module, window: torch.Tensor) -> _Call:
    def catch(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Caught((arguments[0], arguments[1:], named))

    with first.register_forward_pre_hook(catch, with_kwargs=True):
        try:
            loaded.body(input_ids=window, use_cache=False)
        except _Caught as caught:
            return caught.call
    raise AssertionError("the first block was not reached")


class BlockInputs:
    """The input of each block, batch by batch, in one pass over some text.

    If only one block is changed, the blocks before it compute the same as before: later passes over the same batches
    skip them.
    """

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        self._blocks = blocks
        self._kept: list[list[torch.Tensor]] = [[] for _ in blocks]

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the blocks' inputs during the `with` block."""
        with ExitStack() as hooks:
            for block, kept in zip(self._blocks, self._kept, strict=True):
                hooks.enter_context(block.register_forward_pre_hook(partial(_keep, kept)))
            yield

    @contextmanager
    def resumed(self, first: int) -> Iterator[None]:
        """Start each pass at block `first`, with the recorded batches in their order."""
        batches = iter(self._kept[first])
        for block in self._blocks[:first]:
            block.forward = _pass_on
        try:
            with self._blocks[first].register_forward_pre_hook(lambda _, arguments: (next(batches), *arguments[1:])):
                yield
        finally:
            for block in self._blocks[:first]:
                del block.forward


def _keep(kept: list[torch.Tensor], module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
    kept.append(arguments[0])


def _pass_on(hidden_states: torch.Tensor, *others: Any, **named: Any) -> torch.Tensor:
    return hidden_states
