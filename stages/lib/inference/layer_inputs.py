"""The inputs of matrices: those of a linear layer, and those of each expert, which sees its own tokens only."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from stages.lib.weights.module_tree import is_known_experts

See = Callable[[str, int, torch.Tensor], None]
"""Takes the name of a parameter, the number of the expert (0 in a linear layer), and inputs (tokens, inputs)."""


def inputs_seen(layer: nn.Module, see: See) -> AbstractContextManager[Any]:
    """Pass the inputs of a layer's matrices to `see` whenever the layer runs."""

    def before(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        if is_known_experts(module):
            for parameter, expert, inputs in _expert_inputs(module, *arguments):
                see(parameter, expert, inputs)
        else:
            see("weight", 0, arguments[0].detach().flatten(end_dim=-2))

    handle: AbstractContextManager[Any] = layer.register_forward_pre_hook(before)
    return handle


def _expert_inputs(
    experts: Any, states: torch.Tensor, chosen: torch.Tensor, *weights: torch.Tensor
) -> Iterator[tuple[str, int, torch.Tensor]]:
    """The inputs of both matrices of each expert that has tokens, in the layout that transformers gives all experts.

    `chosen` holds the numbers of each token's experts. Shapes: (tokens, hidden) and (tokens, experts per token).
    """
    states = states.flatten(end_dim=-2)
    first = "gate_up_proj" if experts.has_gate else "up_proj"
    for expert in range(experts.num_experts):
        inputs = states[(chosen.view(len(states), -1) == expert).any(dim=1)]
        if not len(inputs):
            continue
        yield first, expert, inputs
        matrix = getattr(experts, first)[expert]
        bias = getattr(experts, f"{first}_bias")[expert] if experts.has_bias else None
        outputs = functional.linear(inputs, matrix.T if experts.is_transposed else matrix, bias)
        yield "down_proj", expert, experts._apply_gate(outputs) if experts.has_gate else experts.act_fn(outputs)
