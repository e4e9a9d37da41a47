"""Updates the remaining weights of a pruned matrix: least squares for a given mask.

For a matrix W, a mask and the products H of its inputs, summed over tokens, the matrix V that is zero in the mask and
has the closest outputs minimizes Σ ‖(V - W) x‖² = tr((V - W) H (V - W)ᵀ), the objective of SparseGPT (Frantar &
Alistarh, 2023). With the products G of the gradients with respect to its outputs, V minimizes tr(G (V - W) H (V - W)ᵀ),
the Kronecker-factored estimate of the loss, as in the LLM Surgeon (van der Ouderaa et al., 2024). SparseGPT passes each
column's error on to the columns after it, in one sweep; here conjugate gradients solve for all weights at once, in the
space of the kept ones, as in ALPS (Meng et al., 2024, NeurIPS).
"""

from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    import torch

DAMPING = 0.01
"""Added to the diagonals of H and of G, as a share of each one's mean."""
STEPS = 20
"""The number of steps of conjugate gradients. The first ones reduce the error most; after these, little is gained."""


def fitted(
    weight: "torch.Tensor",
    mask: "torch.Tensor",
    inputs: "torch.Tensor",
    gradients: "torch.Tensor | None" = None,
    start: "torch.Tensor | None" = None,
    steps: int = STEPS,
) -> "torch.Tensor":
    """The minimizer in float32, from a start (the pruned weight itself) after some steps of conjugate gradients.

    Shapes: (outputs, inputs) for weight, mask and start, (inputs, inputs) and (outputs, outputs). Raises UserError if
    the damped products are not positive definite along a step; with sums of squares, only rounding can cause this.
    """
    import torch

    weight = weight.float()
    inputs = _damped(inputs)
    scale = inputs.diagonal()
    if gradients is not None:
        gradients = _damped(gradients)
        scale = gradients.diagonal()[:, None] * scale

    def curved(change: "torch.Tensor") -> "torch.Tensor":
        product = change @ inputs if gradients is None else gradients @ change @ inputs
        return product.masked_fill_(mask, 0)

    found = (weight if start is None else start.float()).masked_fill(mask, 0)
    residual = curved(weight - found)
    direction = residual / scale
    squares = (residual * direction).sum()
    negligible = torch.finfo(torch.float32).eps ** 2 * (weight.square() * scale).sum()
    for _ in range(steps):
        if 0 <= squares <= negligible:  # below the rounding of the weights; further steps would underflow
            break
        product = curved(direction)
        curvature = (direction * product).sum()
        if not curvature > 0:
            other = "prune.update to none" if gradients is None else "prune.method to kfac"
            raise UserError(
                "the curvature of a matrix is not positive definite; in params.yaml, raise prune.calibration_tokens, "
                f"or set {other}"
            )
        found += squares / curvature * direction
        residual -= squares / curvature * product
        before, squares = squares, (residual.square() / scale).sum()
        direction = residual / scale + squares / before * direction
    return found


def _damped(products: "torch.Tensor") -> "torch.Tensor":
    """Products with a mean diagonal of 1 and damping; the identity where all are zero, as of dead inputs or outputs."""
    import torch

    mean = products.diagonal().mean()
    scaled = products.float() / torch.where(mean > 0, mean, 1)
    scaled.diagonal().add_(DAMPING if mean > 0 else 1)
    return scaled
