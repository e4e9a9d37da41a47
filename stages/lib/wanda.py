"""Wanda: a weight counts by its magnitude times the norm of the input that it multiplies.

Sun, Liu, Bair & Kolter (2024), "A Simple and Effective Pruning Approach for Large Language Models",
ICLR. The score of weight (i, j) is |W_ij| · ‖X_j‖₂, with the norm over all calibration tokens; the
smallest of each row, that is of each output, go.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from stages.lib.blockwise import through_blocks
from stages.lib.budgets import spread
from stages.lib.families import Family
from stages.lib.masks import Mask
from stages.lib.models import Loaded


@torch.no_grad()
def wanda_masks(loaded: Loaded, family: Family, windows: Sequence[torch.Tensor], k: int) -> Iterator[tuple[str, Mask]]:
    """Each prunable tensor's mask, in state-dict order; k weights are pruned in total.

    Every row loses the same share, to less than one weight. The model is pruned on the way.
    """
    config = loaded.model.config.to_dict()
    shapes = [loaded.model.get_parameter(name).shape for name in family.prunable(config)]
    rows = np.array([shape[1 - family.input_axis] for shape in shapes])
    budgets = iter(np.split(spread(k, np.repeat([shape[family.input_axis] for shape in shapes], rows)), rows.cumsum()))
    depth = family.depth(config)
    blocks = [loaded.model.get_submodule(family.block.format(block)) for block in range(depth)]
    for number, run in enumerate(through_blocks(loaded, blocks, windows)):
        layers = [blocks[number].get_submodule(matrix) for matrix in family.matrices]
        norms = input_norms(layers, run)
        for matrix, layer, norm in zip(family.matrices, layers, norms, strict=True):
            weight = layer.get_parameter("weight")
            by_output = weight.movedim(family.input_axis, 1)
            mask = smallest_of_rows(by_output.float().abs() * norm, torch.from_numpy(next(budgets)))
            by_output.masked_fill_(mask, 0)
            yield family.weight(number, matrix), mask.movedim(1, family.input_axis).cpu().numpy()


def input_norms(layers: Sequence[nn.Module], run: Callable[[], object]) -> list[torch.Tensor]:
    """The 2-norm of each input of each layer, over all tokens that `run` takes through them."""
    squares = [torch.zeros(()) for _ in layers]

    def add(index: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            squares[index] = squares[index].to(inputs[0].device) + inputs[0].double().square().sum(dim=(0, 1))

        return hook

    hooks = [layer.register_forward_pre_hook(add(index)) for index, layer in enumerate(layers)]
    run()
    for hook in hooks:
        hook.remove()
    return [square.sqrt().float() for square in squares]


def smallest_of_rows(scores: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """True at each row's `counts` smallest scores; among equal ones the first go.

    Shapes: (rows, columns) and (rows,).
    """
    order = scores.argsort(dim=1, stable=True)
    chosen = torch.arange(scores.shape[1], device=scores.device) < counts.to(scores.device)[:, None]
    return torch.zeros_like(chosen).scatter_(1, order, chosen)
