"""SparseGPT: prunes column by column, and has the columns to the right make up for what went.

Frantar & Alistarh (2023), "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
ICML, algorithm 1. With H = X Xᵀ + λI over the calibration tokens and the upper Cholesky factor U of
H⁻¹, the score of weight (i, j) is (W_ij / U_jj)². A pruned weight's error e = W_ij / U_jj is taken off
the columns from j on, times U_j: that is what the least squares of the outputs asks of them.
"""

import numpy as np
import torch

from stages.lib.pruning.budgets import spread
from stages.lib.recipes.choosing import choose
from stages.lib.recipes.masks import Mask

COLUMNS_AT_ONCE = 128
"""The mask is chosen for this many columns before they are changed, as in the paper."""
DAMPING = 0.01
"""λ, as a share of the mean of H's diagonal, as in the paper."""


def input_products(inputs: torch.Tensor) -> torch.Tensor:
    """The products of each two inputs, summed over tokens. Shapes: (tokens, inputs) and (inputs, inputs)."""
    inputs = inputs.float()
    return inputs.T @ inputs


def sparsegpt_mask(weight: torch.Tensor, products: torch.Tensor, k: int) -> Mask:
    """Change a matrix in place, and say which k of its weights are to be zero.

    Shapes: (outputs, inputs) and (inputs, inputs).
    """
    outputs, inputs = weight.shape
    changed = weight.float()
    factor = _cholesky_of_inverse(products)
    starts = range(0, inputs, COLUMNS_AT_ONCE)
    counts = spread(k, [outputs * min(COLUMNS_AT_ONCE, inputs - start) for start in starts])
    masks = []
    for start, count in zip(starts, counts, strict=True):
        end = min(start + COLUMNS_AT_ONCE, inputs)
        mask, errors = _prune_columns(changed[:, start:end], factor[start:end, start:end], int(count))
        changed[:, end:] -= errors @ factor[start:end, end:]
        masks.append(mask)
    weight.copy_(changed)
    return np.concatenate(masks, axis=1)


def _cholesky_of_inverse(products: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the inverse of the damped products."""
    damped = products.clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1  # an input that is never anything but zero: its weights cost nothing
    diagonal += DAMPING * diagonal.mean()
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor


def _prune_columns(columns: torch.Tensor, factor: torch.Tensor, k: int) -> tuple[Mask, torch.Tensor]:
    """Prune k weights of some columns, changing these in place; the mask, and each weight's error."""
    scores = (columns / factor.diagonal()).square()
    mask = choose(scores.cpu().numpy(), "layer", k)
    pruned = torch.from_numpy(mask).to(columns.device)
    # Transposed, so that a column lies in one piece: each one changes all after it.
    by_column, pruned = columns.T.contiguous(), pruned.T.contiguous()
    errors = torch.zeros_like(by_column)
    for column, weights in enumerate(by_column):
        kept = weights.masked_fill(pruned[column], 0)
        errors[column] = (weights - kept) / factor[column, column]
        by_column[column:] -= factor[column, column:, None] * errors[column]
        by_column[column] = kept
    columns.copy_(by_column.T)
    return mask, errors.T
