"""Prunes a model block by block, by any method whose scores depend on calibration text."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from torch import nn

from stages.lib.inference.blockwise import through_blocks
from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.method import OnText
from stages.lib.recipes.choosing import spread
from stages.lib.recipes.masks import Mask


@torch.no_grad()
def calibrated_masks(
    loaded: Loaded, windows: Sequence[torch.Tensor], block_counts: Sequence[int], method: OnText, scope: str
) -> Iterator[tuple[str, Mask]]:
    """Each prunable tensor's mask, in state-dict order, with the given number of pruned weights per block.

    A block's count is shared by its matrices in proportion to their size. The model is pruned along the way, and a
    method that changes weights changes its others too. Raises UserError if M of a scope N:M does not divide a
    matrix's inputs.
    """
    family = loaded.family
    for number, (block, run) in enumerate(through_blocks(loaded, windows)):
        layers = [block.get_submodule(matrix) for matrix in family.matrices]
        found = input_statistics(loaded, number, run, method.statistic)
        counts = spread(int(block_counts[number]), [layer.get_parameter("weight").numel() for layer in layers])
        for matrix, layer, statistics, k in zip(family.matrices, layers, found, counts, strict=True):
            by_output = layer.get_parameter("weight").movedim(family.input_axis, 1)
            mask = method.prune(by_output, statistics, scope, int(k))
            by_output.masked_fill_(torch.from_numpy(mask).to(by_output.device), 0)
            yield family.weight(number, matrix), np.moveaxis(mask, 1, family.input_axis)


def input_statistics(
    loaded: Loaded, block: int, run: Callable[[], object], statistic: Callable[[torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """A statistic of the inputs of each matrix of a block, summed over all tokens that `run` passes through it.

    Raises UserError if one is not finite.
    """
    found: dict[str, torch.Tensor] = {}
    within = loaded.blocks[block]

    def add(matrix: str, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        more = statistic(inputs[0].flatten(end_dim=-2))
        found[matrix] = found[matrix] + more if matrix in found else more

    with ExitStack() as hooks:
        for matrix in loaded.family.matrices:
            layer = within.get_submodule(matrix)
            hooks.enter_context(layer.register_forward_pre_hook(partial(add, matrix)))
        run()
    for matrix, sums in found.items():
        name = loaded.family.weight(block, matrix)
        check_finite(sums, f"the sums over the inputs of {name}", loaded.runs_on.dtype)
    return [found[matrix] for matrix in loaded.family.matrices]
