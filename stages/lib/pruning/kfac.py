"""K-FAC: a weight's score is proportional to the loss that its removal adds, by the diagonals of Kronecker factors.

The score of weight (i, j) is W_ij² · Σ x_j² · Σ g_i², with x the matrix's inputs, g the gradients of the text's loss
with respect to its outputs, and sums over all calibration tokens: Optimal Brain Damage (LeCun, Denker & Solla, 1990,
NeurIPS) with the curvature of Martens & Grosse (2015), "Optimizing Neural Networks with Kronecker-factored Approximate
Curvature", ICML. All scores are in the same unit, so one threshold can go over all matrices. There is no
reference code.
"""

from typing import TYPE_CHECKING

from stages.lib.pruning.method import Method, OnGradients
from stages.lib.pruning.wanda import input_squares

if TYPE_CHECKING:
    import torch


def kfac_scores(weight: "torch.Tensor", inputs: "torch.Tensor", gradients: "torch.Tensor") -> "torch.Tensor":
    """The square root of each weight's score. Shapes: (outputs, inputs), (inputs,) and (outputs,)."""
    return weight.float().abs() * inputs.sqrt().float() * gradients.sqrt().float()[:, None]


KFAC = Method(
    name="kfac",
    scopes=("global", "layer", "row", "N:M"),
    summary="Pruned by the diagonals of Kronecker factors (kfac): the weights whose removal adds least to the loss "
    "(a second-order estimate)",
    source="Martens & Grosse (2015), Optimizing Neural Networks with Kronecker-factored Approximate Curvature",
    on_gradients=OnGradients(input_squares, kfac_scores),
)
