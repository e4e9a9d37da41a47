"""Wanda: a weight's score is its magnitude times the norm of the input that it multiplies.

Sun, Liu, Bair & Kolter (2024), "A Simple and Effective Pruning Approach for Large Language Models", ICLR. The score
of weight (i, j) is |W_ij| · ‖X_j‖₂, with the norm over all calibration tokens. Reference code: locuslab/wanda.
Differs from it: the squares are summed in float64, and the calibration text is `prune.calibration_tokens` of the
text's train split in place of C4.
"""

from typing import TYPE_CHECKING

from stages.lib.pruning.method import Method, OnText
from stages.lib.recipes.choosing import choose
from stages.lib.recipes.masks import Mask

if TYPE_CHECKING:
    import torch


def input_squares(inputs: "torch.Tensor") -> "torch.Tensor":
    """The squares of each input, summed over tokens. Shapes: (tokens, inputs) and (inputs,)."""
    return inputs.double().square().sum(dim=0)


def wanda_scores(weight: "torch.Tensor", squares: "torch.Tensor") -> "torch.Tensor":
    """The score of each weight. Shapes: (outputs, inputs) and (inputs,)."""
    return weight.float().abs() * squares.sqrt().float()


def wanda_mask(weight: "torch.Tensor", squares: "torch.Tensor", scope: str, k: int) -> Mask:
    """The mask of the k smallest scores in a scope. Shapes: (outputs, inputs) and (inputs,)."""
    return choose(wanda_scores(weight, squares).cpu().numpy(), scope, k)


WANDA = Method(
    name="wanda",
    scopes=("row", "layer", "N:M"),
    summary="Pruned by Wanda: the weights with the smallest product of magnitude and input norm",
    source="Sun et al. (2024), A Simple and Effective Pruning Approach for Large Language Models",
    on_text=OnText(input_squares, wanda_mask),
)
