"""Passes through a model block by block, and passes that start at a block.

A block's first argument is the hidden states, alone or first among its outputs. The others, such as masks and rotary
positions, follow from the tokens alone and may differ between blocks: some attend to a window, others to everything.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import nn
from tqdm import tqdm

from stages.lib.inference.device import Device
from stages.lib.inference.loading import Loaded, replaced_forward

_Others: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""A block's arguments but for the hidden states: positional and named."""

_STATES = "hidden_states"


@dataclass(frozen=True)
class BlockRun:
    """Runs a block on windows, so that hooks see its activations; with gradients where the caller enables them."""

    block: nn.Module
    inputs: Sequence[torch.Tensor]
    """By window, the hidden states that the block reads. Shape: (1, tokens, hidden)."""
    others: Sequence[_Others]
    """By window, the block's other arguments."""
    device: Device

    def __call__(self) -> list[torch.Tensor]:
        """By window, the hidden states that the block gives. Shape: (1, tokens, hidden)."""
        return [self.on(window) for window in range(len(self.inputs))]

    def on(self, window: int) -> torch.Tensor:
        """The same for one window, by its number."""
        more, named = self.others[window]
        with self.device.autocast():
            output = self.block(self.inputs[window], *more, **named)
        states: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
        return states


@torch.no_grad()
def through_blocks(loaded: Loaded, windows: Sequence[torch.Tensor], progress: bool = True) -> Iterator[BlockRun]:
    """For each block, in order, a function that runs it on all windows.

    Each block reads the output of those before it, so changes made to a block before the iterator advances are visible
    to the blocks after it, and only one block's activations are held at a time. SparseGPT (Frantar & Alistarh, 2023)
    and Wanda (Sun et al., 2024) do the same.
    """
    blocks = loaded.blocks
    calls = [_arguments(loaded, window) for window in windows]
    states = [first for first, _ in calls]
    for number, block in enumerate(tqdm(blocks, unit="block", desc="blocks") if progress else blocks):
        run = BlockRun(block, states, [others[number] for _, others in calls], loaded.runs_on)
        yield run
        if number < len(blocks) - 1:
            states = run()


def _arguments(loaded: Loaded, window: torch.Tensor) -> tuple[torch.Tensor, list[_Others]]:
    """The first block's hidden states, and the other arguments of each block. Only the first block computes."""
    first: list[torch.Tensor] = []
    others: list[_Others] = []
    blocks = loaded.blocks

    def keep(block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        states, more = _split(arguments, named)
        others.append(more)
        if not first:
            first.append(states)

    with ExitStack() as during:
        during.enter_context(loaded.runs_on.autocast())
        for block in blocks:
            during.enter_context(block.register_forward_pre_hook(keep, with_kwargs=True))
        form = during.enter_context(_form_of(blocks[0]))
        during.enter_context(_skipped(blocks[1:], form))
        loaded.body(input_ids=window, use_cache=False)
    return first[0], others


def _split(arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[torch.Tensor, _Others]:
    if arguments:
        return arguments[0], (arguments[1:], named)
    return named[_STATES], ((), {key: value for key, value in named.items() if key != _STATES})


@contextmanager
def _form_of(block: nn.Module) -> Iterator[list[int]]:
    """How many outputs a block gives beside the hidden states, once it has run; nothing if it gives these alone."""
    form: list[int] = []

    def see(block: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        form[:] = [len(output) - 1] if isinstance(output, tuple | list) else []

    with block.register_forward_hook(see):
        yield form


@contextmanager
def _skipped(blocks: Sequence[nn.Module], form: Sequence[int]) -> Iterator[None]:
    """Make blocks pass their hidden states on, in the form of their outputs."""

    def pass_on(*arguments: Any, **named: Any) -> Any:
        states, _ = _split(arguments, named)
        return (states, *[None] * form[0]) if form else states

    with replaced_forward(blocks, pass_on):
        yield


class BlockInputs:
    """The input of each block, batch by batch, in one pass over some text.

    If only one block is changed, the blocks before it compute the same as before: later passes over the same batches
    skip them.
    """

    def __init__(self, loaded: Loaded) -> None:
        self._blocks = loaded.blocks
        self._shares_keys = bool(getattr(loaded.model.config, "num_kv_shared_layers", 0))
        self._kept: list[list[torch.Tensor]] = [[] for _ in self._blocks]
        self._form: list[int] = []

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the blocks' inputs during the `with` block."""
        with ExitStack() as hooks:
            for block, kept in zip(self._blocks, self._kept, strict=True):
                hooks.enter_context(block.register_forward_pre_hook(partial(_keep, kept), with_kwargs=True))
            form = hooks.enter_context(_form_of(self._blocks[0]))
            yield
            self._form = form

    @contextmanager
    def resumed(self, first: int) -> Iterator[None]:
        """Start each pass at block `first`, with the recorded batches in their order."""
        if self._shares_keys:  # with blocks before, which have to compute them
            yield
            return
        batches = iter(self._kept[first])

        def give(block: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
            _, (more, others) = _split(arguments, named)
            return (next(batches), *more), others

        with (
            _skipped(self._blocks[:first], self._form),
            self._blocks[first].register_forward_pre_hook(give, with_kwargs=True),
        ):
            yield


def _keep(
    kept: list[torch.Tensor], module: nn.Module, arguments: tuple[torch.Tensor, ...], named: dict[str, Any]
) -> None:
    states, _ = _split(arguments, named)
    kept.append(states)
