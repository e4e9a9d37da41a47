"""Prunes by the curvature of the loss, in one shot or several, with the curvature estimated again before each."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.curvature import Curvature, curvatures
from stages.lib.pruning.method import OnGradients
from stages.lib.pruning.selection import threshold_of
from stages.lib.recipes.choosing import MatrixCounts, choose_in_tensor, masks_at
from stages.lib.recipes.masks import Mask
from stages.lib.weights.checkpoint import Bits
from stages.lib.weights.structure import Matrix


@torch.no_grad()
def prune_over_all(
    loaded: Loaded, windows: Sequence[torch.Tensor], method: OnGradients, k: int, shots: int
) -> dict[str, Mask]:
    """Prune the k weights with the smallest scores of all matrices, in place; the masks.

    Each shot estimates the curvature and prunes as many weights as any other, in the method's rounds. A pruned weight
    has a score of 0, so it stays pruned unless more scores are 0 than the round prunes, as with many dead inputs.
    """
    masks: dict[str, Mask] = {}
    rounds = method.rounds
    for shot in range(shots):
        found = curvatures(loaded, windows, method.statistic)
        for done in range(shot * rounds + 1, (shot + 1) * rounds + 1):
            masks = masks_over_all(loaded, method, found, k * done // (shots * rounds))
            _apply(loaded, method, found, masks)
    return masks


def masks_over_all(loaded: Loaded, method: OnGradients, found: Mapping[str, Curvature], k: int) -> dict[str, Mask]:
    """The masks of the k smallest scores of all matrices; among equal ones the first in state-dict order."""
    by_name = {matrix.name: matrix for matrix in loaded.structure.all_matrices}

    def bits_of(name: str) -> Sequence[Bits]:
        return [_scores(loaded, by_name[name], method, found[name]).numpy().view(np.uint32).reshape(-1)]

    threshold = threshold_of(bits_of, list(by_name), k)
    return dict(masks_at(threshold, bits_of, {name: matrix.shape for name, matrix in by_name.items()}))


@torch.no_grad()
def masks_within(
    loaded: Loaded, windows: Sequence[torch.Tensor], method: OnGradients, counts: MatrixCounts, scope: str
) -> dict[str, Mask]:
    """The masks of each single matrix's given number of smallest scores within a scope.

    Raises UserError if M of a scope N:M does not divide a matrix's inputs.
    """
    found = curvatures(loaded, windows, method.statistic)
    masks: dict[str, Mask] = {}
    for matrix in loaded.structure.all_matrices:
        scores = _scores(loaded, matrix, method, found[matrix.name]).numpy()
        masks[matrix.name] = choose_in_tensor(matrix, scores, scope, counts[matrix.name])
    return masks


def _scores(loaded: Loaded, matrix: Matrix, method: OnGradients, curvature: Curvature) -> torch.Tensor:
    """Scores in the tensor's shape, in the memory of the CPU."""
    (weight,) = matrix.by_output(loaded.weights[matrix.name])
    scores = torch.empty(matrix.shape)
    matrix.by_output(scores)[0].copy_(method.scores(weight, curvature.inputs, curvature.gradients))
    return scores


def _apply(loaded: Loaded, method: OnGradients, found: Mapping[str, Curvature], masks: Mapping[str, Mask]) -> None:
    """Zero the weights of the masks, and update the others if the method does.

    Raises UserError if an updated weight is too large for the model's dtype.
    """
    for matrix in loaded.structure.all_matrices:
        mask = torch.from_numpy(masks[matrix.name]).to(loaded.device)
        if method.update is None:
            loaded.weights[matrix.name].masked_fill_(mask, 0)
            continue
        original = loaded.checkpoint.tensors([matrix.name])[matrix.name].to(loaded.device)
        weight, before, pruned = (matrix.by_output(each)[0] for each in (loaded.weights[matrix.name], original, mask))
        curvature = found[matrix.name]
        weight.copy_(method.update(before, pruned, curvature.inputs, curvature.gradients, weight))
        check_finite(weight, f"the updated weights of {matrix.name}", loaded.runs_on.dtype)
