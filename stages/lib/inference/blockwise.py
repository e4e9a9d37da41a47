"""Runs calibration text through a model block by block, each block reading the output of those before it.

A block is pruned on the outputs of blocks that are pruned already, as in the final model, and only one block's
activations are held at a time. SparseGPT (Frantar & Alistarh, 2023) and Wanda (Sun et al., 2024) do the same.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from tqdm import tqdm

from stages.lib.inference.loading import Loaded
from stages.lib.weights.family import Family

_Call: TypeAlias = tuple[torch.Tensor, tuple[Any, ...], dict[str, Any]]
"""A block's input, and its other arguments, positional and named."""


class _Caught(Exception):  # noqa: N818 - no error: it ends a pass whose purpose is fulfilled
    def __init__(self, call: _Call) -> None:
        super().__init__()
        self.call = call


def blocks_of(loaded: Loaded, family: Family) -> list[nn.Module]:
    """A model's blocks, in order."""
    depth = family.depth(loaded.model.config.to_dict())
    return [loaded.model.get_submodule(family.block.format(block)) for block in range(depth)]


@torch.no_grad()
def through_blocks(
    loaded: Loaded, blocks: Sequence[nn.Module], windows: Sequence[torch.Tensor]
) -> Iterator[Callable[[], list[torch.Tensor]]]:
    """For each block, in order, a function that runs it on all windows, so that hooks see its activations.

    Changes made to a block before the iterator advances are visible to the blocks after it.
    """
    calls = [_first_call(loaded, blocks[0], window) for window in windows]
    for number, block in enumerate(tqdm(blocks, unit="block", desc="blocks")):
        yield partial(_run, block, calls)
        if number < len(blocks) - 1:
            outputs = _run(block, calls)
            calls = [(states, others, named) for states, (_, others, named) in zip(outputs, calls, strict=True)]


def _run(block: nn.Module, calls: Sequence[_Call]) -> list[torch.Tensor]:
    return [block(states, *others, **named) for states, others, named in calls]


def _first_call(loaded: Loaded, first: nn.Module, window: torch.Tensor) -> _Call:
    def catch(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Caught((arguments[0], arguments[1:], named))

    hook = first.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        loaded.body(input_ids=window, use_cache=False)
    except _Caught as caught:
        return caught.call
    finally:
        hook.remove()
    raise AssertionError("the first block was not reached")
