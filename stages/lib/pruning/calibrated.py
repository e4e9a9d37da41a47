"""Prunes a model block by block on calibration text, by any method whose scores depend on it."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from stages.lib.inference.blockwise import blocks_of, through_blocks
from stages.lib.pruning.budgets import spread
from stages.lib.recipes.choosing import choose
from stages.lib.weights.families import Family
from stages.lib.recipes.masks import Mask
from stages.lib.pruning.sparsegpt import input_products, sparsegpt_mask
from stages.lib.pruning.wanda import input_squares, wanda_scores
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.scopes import CalibratedMethod

Statistic: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""What is summed up of a matrix's inputs, of shape (tokens, inputs)."""

Pruner: TypeAlias = Callable[[torch.Tensor, torch.Tensor, int], Mask]
"""Which k weights of a matrix (outputs, inputs) go, by the statistic; it may change those that stay."""


def _statistic_and_pruner(method: CalibratedMethod, scope: str) -> tuple[Statistic, Pruner]:
    if method == "wanda":
        return input_squares, lambda weight, squares, k: choose(wanda_scores(weight, squares).cpu().numpy(), scope, k)
    return input_products, sparsegpt_mask


@torch.no_grad()
def calibrated_masks(
    loaded: Loaded,
    family: Family,
    windows: Sequence[torch.Tensor],
    block_counts: Sequence[int],
    method: CalibratedMethod,
    scope: str,
) -> Iterator[tuple[str, Mask]]:
    """Each prunable tensor's mask, in state-dict order; each block loses its count of weights.

    Of a block's count each matrix gets its share. The model is pruned on the way, and SparseGPT
    changes its other weights, too. Raises UserError if M of a scope N:M does not divide a matrix's inputs.
    """
    statistic, prune = _statistic_and_pruner(method, scope)
    blocks = blocks_of(loaded, family)
    for number, run in enumerate(through_blocks(loaded, blocks, windows)):
        layers = [blocks[number].get_submodule(matrix) for matrix in family.matrices]
        found = input_statistics(layers, run, statistic)
        counts = spread(int(block_counts[number]), [layer.get_parameter("weight").numel() for layer in layers])
        for matrix, layer, statistics, k in zip(family.matrices, layers, found, counts, strict=True):
            by_output = layer.get_parameter("weight").movedim(family.input_axis, 1)
            mask = prune(by_output, statistics, int(k))
            by_output.masked_fill_(torch.from_numpy(mask).to(by_output.device), 0)
            yield family.weight(number, matrix), np.moveaxis(mask, 1, family.input_axis)


def input_statistics(
    layers: Sequence[nn.Module], run: Callable[[], object], statistic: Statistic
) -> list[torch.Tensor]:
    """A statistic of each layer's inputs, summed over all tokens that `run` takes through them."""
    found: list[torch.Tensor | None] = [None for _ in layers]

    def add(index: int) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            more = statistic(inputs[0].flatten(end_dim=-2))
            so_far = found[index]
            found[index] = more if so_far is None else so_far + more

        return hook

    hooks = [layer.register_forward_pre_hook(add(index)) for index, layer in enumerate(layers)]
    run()
    for hook in hooks:
        hook.remove()
    assert all(total is not None for total in found), "a layer was not run"
    return [total for total in found if total is not None]
