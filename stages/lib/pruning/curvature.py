"""The curvature of the loss with respect to each matrix, as two Kronecker factors: of its inputs and of its gradients.

With x a matrix's input at a token, and g the gradient of the window's loss with respect to the output there, the Fisher
information of the weights is approximately E[xxᵀ] ⊗ E[ggᵀ]: Martens & Grosse (2015), "Optimizing Neural Networks with
Kronecker-factored Approximate Curvature", ICML. The labels are the text's own tokens (the empirical Fisher
information). Sums over all tokens stand in for the means: the same factor for all matrices, so these are comparable.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch

from stages.lib.files.errors import UserError
from stages.lib.inference.device import check_finite
from stages.lib.inference.gradients import gradients_seen, pass_back
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.calibrated import input_statistics
from stages.lib.weights.structure import Matrix


@dataclass(frozen=True)
class Curvature:
    """A statistic of the inputs and of the gradients of one matrix, each summed over all tokens."""

    inputs: torch.Tensor
    gradients: torch.Tensor


def curvatures(
    loaded: Loaded, windows: Sequence[torch.Tensor], statistic: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, Curvature]:
    """By name, each matrix's curvature, from one pass forward and back.

    Raises UserError if the model cannot be differentiated, a matrix's inputs or gradients are not seen, a sum is not
    finite, or gradients are zero for another reason than dead outputs.
    """
    matrices = loaded.structure.all_matrices
    if experts := [matrix.name for matrix in matrices if matrix.of_experts]:
        raise _unseen(experts[0])
    sums: dict[str, torch.Tensor] = {}

    def add(layer: str, gradients: torch.Tensor) -> None:
        more = statistic(gradients)
        sums[layer] = sums[layer] + more if layer in sums else more

    with ExitStack() as hooks:
        for layer in dict.fromkeys(matrix.layer for matrix in matrices):
            hooks.enter_context(gradients_seen(loaded.model.get_submodule(layer), partial(add, layer)))
        inputs = input_statistics(loaded, matrices, partial(pass_back, loaded, windows), statistic)
    found = {matrix.name: _curvature(loaded, matrix, inputs[matrix.name][0], sums) for matrix in matrices}
    _check_gradients(found, loaded.runs_on.dtype)
    return found


def _check_gradients(found: Mapping[str, Curvature], dtype: torch.dtype) -> None:
    """Raise UserError if gradients are zero since no token is predicted, or may be since they underflow."""
    zero = [name for name, curvature in found.items() if not curvature.gradients.any()]
    if zero and dtype == torch.float16:
        raise UserError(f"the gradients of {zero[0]} are all zero in float16; set compute.dtype to float32")
    if len(zero) == len(found):
        raise UserError("the calibration text gives no gradients; set prune.calibration_tokens to 2 or more")


def _curvature(loaded: Loaded, matrix: Matrix, inputs: torch.Tensor, sums: dict[str, torch.Tensor]) -> Curvature:
    outputs = matrix.shape[1 - matrix.input_axis]
    gradients = sums.get(matrix.layer)
    if gradients is None or len(gradients) != outputs:
        raise _unseen(matrix.name)
    check_finite(gradients, f"the sums over the gradients of {matrix.name}", loaded.runs_on.dtype)
    return Curvature(inputs, gradients)


def _unseen(name: str) -> UserError:
    return UserError(
        f"the gradients of {name} cannot be gathered; set prune.method to magnitude, random, wanda or sparsegpt, "
        "and prune.budget to uniform"
    )
