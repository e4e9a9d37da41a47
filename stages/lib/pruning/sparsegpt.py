"""SparseGPT: prunes column by column, and updates the remaining columns to compensate.

Frantar & Alistarh (2023), "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML,
algorithm 1. With H = X Xᵀ + λI over the calibration tokens and the upper Cholesky factor U of H⁻¹, the score of
weight (i, j) is (W_ij / U_jj)². A pruned weight's error e = W_ij / U_jj, times U_j, is subtracted from the columns
from j on, which is the least-squares update of the layer's outputs. Reference code: IST-DASLab/sparsegpt. Differs
from it: exactly k weights are pruned, and the calibration text is `prune.calibration_tokens` of the text's train
split in place of C4. The weights of an input that is always zero cost nothing, so they are pruned first, as there;
the reference zeroes all of them, here at most k.
"""

from typing import TYPE_CHECKING

import numpy as np

from stages.lib.files.errors import UserError
from stages.lib.pruning.method import Method, OnText
from stages.lib.recipes.choosing import choose, spread
from stages.lib.recipes.masks import Mask

if TYPE_CHECKING:
    import torch

COLUMNS_AT_ONCE = 128
"""The mask is chosen for this many columns before they are updated, as in the paper."""
DAMPING = 0.01
"""λ, as a share of the mean of H's diagonal, as in the paper."""


def input_products(inputs: "torch.Tensor") -> "torch.Tensor":
    """The products of each two inputs, summed over tokens. Shapes: (tokens, inputs) and (inputs, inputs)."""
    inputs = inputs.float()
    return inputs.T @ inputs


def sparsegpt_mask(weight: "torch.Tensor", products: "torch.Tensor", scope: str, k: int) -> Mask:
    """The mask of k weights of a matrix, updated in place. Shapes: (outputs, inputs) and (inputs, inputs)."""
    assert scope == "layer", "the only scope of this method"
    outputs, inputs = weight.shape
    updated = weight.float()
    alive, factor = products.diagonal() != 0, _cholesky_of_inverse(products)
    starts = range(0, inputs, COLUMNS_AT_ONCE)
    counts = spread(k, [outputs * min(COLUMNS_AT_ONCE, inputs - start) for start in starts])
    masks = []
    for start, count in zip(starts, counts, strict=True):
        end = min(start + COLUMNS_AT_ONCE, inputs)
        columns = updated[:, start:end]
        scores = (columns / factor.diagonal()[start:end]).square() * alive[start:end]
        mask = choose(scores.cpu().numpy(), "layer", int(count))
        errors = _prune_columns(columns, factor[start:end, start:end], mask)
        updated[:, end:] -= errors @ factor[start:end, end:]
        masks.append(mask)
    weight.copy_(updated)
    return np.concatenate(masks, axis=1)


def _cholesky_of_inverse(products: "torch.Tensor") -> "torch.Tensor":
    """The upper Cholesky factor of the inverse of the damped products. Raises UserError if they have none."""
    import torch

    damped = products.clone()
    diagonal = damped.diagonal()
    diagonal[diagonal == 0] = 1  # an input that is always zero
    diagonal += DAMPING * diagonal.mean()
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
        factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        raise UserError(
            "sparsegpt cannot invert the products of a matrix's inputs; "
            "raise prune.calibration_tokens, or set prune.method to wanda in params.yaml"
        ) from None
    return factor


def _prune_columns(columns: "torch.Tensor", factor: "torch.Tensor", mask: Mask) -> "torch.Tensor":
    """Prune the weights of a mask in some columns, updating these in place; each weight's error."""
    import torch

    # Transposed, so that each column is contiguous: each one updates all after it.
    by_column, pruned = columns.T.contiguous(), torch.from_numpy(mask).to(columns.device).T.contiguous()
    errors = torch.zeros_like(by_column)
    for column, weights in enumerate(by_column):
        kept = weights.masked_fill(pruned[column], 0)
        errors[column] = (weights - kept) / factor[column, column]
        by_column[column:] -= factor[column, column:, None] * errors[column]
        by_column[column] = kept
    columns.copy_(by_column.T)
    return errors.T


SPARSEGPT = Method(
    name="sparsegpt",
    scopes=("layer",),
    summary="Pruned by SparseGPT, with the remaining weights updated to compensate: the weights whose removal "
    "changes the layer's output least (a second-order estimate)",
    source="Frantar & Alistarh (2023), SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot",
    on_text=OnText(input_products, sparsegpt_mask, changes_weights=True),
)
