"""Wanda: a weight counts by its magnitude times the norm of the input that it multiplies.

Sun, Liu, Bair & Kolter (2024), "A Simple and Effective Pruning Approach for Large Language Models",
ICLR. The score of weight (i, j) is |W_ij| · ‖X_j‖₂, with the norm over all calibration tokens.
"""

import torch


def input_squares(inputs: torch.Tensor) -> torch.Tensor:
    """The squares of each input, summed over tokens. Shapes: (tokens, inputs) and (inputs,)."""
    return inputs.double().square().sum(dim=0)


def wanda_scores(weight: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
    """What each weight is worth. Shapes: (outputs, inputs) and (inputs,)."""
    return weight.float().abs() * squares.sqrt().float()
