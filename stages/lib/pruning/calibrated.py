"""Prunes a model block by block by the inputs of its matrices on some text, and updates it for given masks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch

from stages.lib.files.errors import UserError
from stages.lib.inference.blockwise import through_blocks
from stages.lib.inference.device import check_finite
from stages.lib.inference.layer_inputs import inputs_seen
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.least_squares import fitted
from stages.lib.pruning.method import OnText
from stages.lib.pruning.sparsegpt import input_products
from stages.lib.recipes.choosing import MatrixCounts
from stages.lib.recipes.masks import Mask
from stages.lib.weights.structure import Matrix


@torch.no_grad()
def calibrated_masks(
    loaded: Loaded, windows: Sequence[torch.Tensor], counts: MatrixCounts, method: OnText, scope: str
) -> Iterator[tuple[str, Mask]]:
    """Each prunable tensor's mask, in state-dict order, with the given number of pruned weights per single matrix.

    The model is pruned along the way, and a method that changes weights changes its others too. Raises UserError if M
    of a scope N:M does not divide a matrix's inputs.
    """
    for run, matrices in zip(through_blocks(loaded, windows), loaded.structure.matrices, strict=True):
        found = input_statistics(loaded, matrices, run, method.statistic)
        for matrix in matrices:
            mask = np.empty(matrix.shape, dtype=np.bool_)
            weights = matrix.by_output(loaded.weights[matrix.name])
            parts = zip(matrix.by_output(mask), weights, found[matrix.name], counts[matrix.name], strict=True)
            for chosen, weight, statistic, count in parts:
                chosen[...] = method.prune(weight, statistic, scope, count)
                weight.masked_fill_(torch.from_numpy(chosen).to(weight.device), 0)
            yield matrix.name, mask


@torch.no_grad()
def fit_outputs(loaded: Loaded, windows: Sequence[torch.Tensor], masks: Mapping[str, Mask]) -> None:
    """Set each matrix to the one with the same mask whose outputs on some text are closest to the original's.

    Block by block, in place: a matrix's inputs are those of its unpruned block after the blocks before it, which are
    pruned and updated. Raises UserError if an updated weight is too large for the model's dtype.
    """
    for run, matrices in zip(through_blocks(loaded, windows), loaded.structure.matrices, strict=True):
        restore(loaded, [matrix.name for matrix in matrices])  # a method may have pruned the block
        found = input_statistics(loaded, matrices, run, input_products)
        for matrix in matrices:
            weights, mask = loaded.weights[matrix.name], torch.from_numpy(masks[matrix.name]).to(loaded.device)
            parts = (matrix.by_output(each) for each in (weights, mask))
            for weight, pruned, products in zip(*parts, found[matrix.name], strict=True):
                weight.copy_(fitted(weight, pruned, products))
            check_finite(weights, f"the updated weights of {matrix.name}", loaded.runs_on.dtype)


@torch.no_grad()
def restore(loaded: Loaded, names: Sequence[str]) -> None:
    """Restore the named tensors from the checkpoint."""
    for name, weight in loaded.checkpoint.tensors(names).items():
        loaded.weights[name].copy_(weight)


def input_statistics(
    loaded: Loaded,
    matrices: Sequence[Matrix],
    run: Callable[[], object],
    statistic: Callable[[torch.Tensor], torch.Tensor],
) -> dict[str, list[torch.Tensor]]:
    """By name, a statistic of the inputs of each single matrix, summed over all tokens that `run` passes through them.

    An expert that no token is sent to counts as having had each of its inputs once, alone, so its weights are ranked by
    magnitude. Raises UserError if a layer's inputs are not seen, or a sum is not finite.
    """
    found: dict[tuple[str, str, int], torch.Tensor] = {}

    def add(layer: str, parameter: str, expert: int, inputs: torch.Tensor) -> None:
        more = statistic(inputs)
        key = layer, parameter, expert
        found[key] = found[key] + more if key in found else more

    with ExitStack() as hooks:
        for layer in dict.fromkeys(matrix.layer for matrix in matrices):
            hooks.enter_context(inputs_seen(loaded.model.get_submodule(layer), partial(add, layer)))
        run()
    seen = {layer for layer, _, _ in found}
    by_name: dict[str, list[torch.Tensor]] = {}
    for matrix in matrices:
        sums = [found.get((matrix.layer, matrix.parameter, expert)) for expert in matrix.experts]
        if matrix.of_experts and matrix.layer in seen and None in sums:
            alone = statistic(torch.eye(matrix.shape[matrix.input_axis], device=loaded.device))
            sums = [alone if each is None else each for each in sums]
        by_name[matrix.name] = [_gathered(each, matrix, loaded.runs_on.dtype) for each in sums]
    return by_name


def _gathered(sums: torch.Tensor | None, matrix: Matrix, dtype: torch.dtype) -> torch.Tensor:
    if sums is None:  # its weight is read past the layer
        raise UserError(
            f"the inputs of {matrix.name} cannot be gathered; "
            "set prune.method to magnitude or random, and prune.budget to uniform"
        )
    check_finite(sums, f"the sums over the inputs of {matrix.name}", dtype)
    return sums
