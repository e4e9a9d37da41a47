"""Gradients of a text's loss with respect to the outputs of layers; weights get none, which saves their memory.

A token's loss is its negative log-likelihood, and the loss of a window the sum over its predicted tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from stages.lib.files.errors import UserError, out_of_memory, reason_of
from stages.lib.inference.final_states import logits_of, vocabulary
from stages.lib.inference.likelihood import LOGITS_AT_ONCE
from stages.lib.inference.loading import Loaded


def gradients_seen(layer: nn.Module, see: Callable[[torch.Tensor], None]) -> AbstractContextManager[Any]:
    """Pass the gradients with respect to a layer's outputs to `see` when they are there. Shape: (tokens, outputs)."""

    def after(module: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        output.register_hook(lambda gradients: see(gradients.flatten(end_dim=-2)))  # type: ignore[no-untyped-call]

    handle: AbstractContextManager[Any] = layer.register_forward_hook(after)
    return handle


def pass_back(loaded: Loaded, windows: Sequence[torch.Tensor]) -> None:
    """Run windows of shape (1, tokens) through a model, and the gradients of their losses back through its body.

    Raises UserError if the model cannot be differentiated in its dtype.
    """
    dtype = str(loaded.runs_on.dtype).removeprefix("torch.")
    try:
        with torch.enable_grad(), _differentiable(loaded):
            for window in tqdm(windows, unit="window", desc="gradients"):
                states = loaded.body(input_ids=window, use_cache=False).last_hidden_state
                states.backward(_by_states(loaded, states.detach(), window))
    except RuntimeError as error:  # NotImplementedError is one
        if out_of_memory(error):
            raise
        other = "" if loaded.runs_on.dtype == torch.float32 else "compute.dtype to float32, or "
        raise UserError(
            f"the model cannot be differentiated in {dtype} ({reason_of(error)}); in params.yaml, set {other}"
            "prune.method to one without gradients, such as sparsegpt, and prune.budget to uniform"
        ) from None


@contextmanager
def _differentiable(loaded: Loaded) -> Iterator[None]:
    """Let gradients go back to the token embeddings, and no parameter keep one, during the `with` block."""
    wanted = {parameter: parameter.requires_grad for parameter in loaded.model.parameters()}
    loaded.model.requires_grad_(False)

    def begin(embedding: nn.Module, arguments: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        output.requires_grad_()

    try:
        with loaded.model.get_input_embeddings().register_forward_hook(begin):
            yield
    finally:
        for parameter, usual in wanted.items():
            parameter.requires_grad_(usual)


def _by_states(loaded: Loaded, states: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    """The gradient of a window's loss with respect to its final hidden states. Shape: (1, tokens, hidden)."""
    gradients = torch.zeros_like(states)
    first, end = loaded.first_target, window.shape[1]
    step = max(1, LOGITS_AT_ONCE // vocabulary(loaded))
    for begin in range(first, end, step):
        targets = window[0, begin : begin + step]
        part = slice(begin - 1, begin - 1 + len(targets))
        slice_states = states[0, part].requires_grad_()
        loss = functional.cross_entropy(logits_of(loaded, slice_states), targets, reduction="sum")
        (gradients[0, part],) = torch.autograd.grad(loss, slice_states)
    return gradients
