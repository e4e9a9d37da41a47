"""Surgeon: prunes by the curvature of the loss, and updates the remaining weights to compensate, in shots.

After van der Ouderaa, Nagel, van Baalen, Asano & Blankevoort (2024), "The LLM Surgeon", ICLR: Kronecker factors of the
Fisher information with damping, one threshold over all matrices, updates that use both factors, and shots between which
the curvature is estimated again. Reference code: Qualcomm-AI-research/llm-surgeon; as in its defaults, gradients are of
the text's own tokens. Differs from it:

- The score of a weight is w² [G]ᵢᵢ [A]ⱼⱼ, that of `kfac`, not w² / ([G⁻¹]ᵢᵢ [A⁻¹]ⱼⱼ). The inverse assumes that all
  other weights make up for this one, but many of them are pruned at the same time; docs/methods.md has the figures.
- A shot has rounds that prune a part of its weights each, with the same factors and the weights updated by then.
- Updates solve for all remaining weights of a matrix at once, and their aim is always the original matrix, so that the
  errors of earlier shots are made up for as well; there, a shot starts from the weights that the one before it left.
- Exactly k weights are pruned.
"""

from functools import partial
from typing import TYPE_CHECKING

from stages.lib.pruning.kfac import kfac_scores
from stages.lib.pruning.least_squares import fitted
from stages.lib.pruning.method import Method, OnGradients
from stages.lib.pruning.sparsegpt import input_products

if TYPE_CHECKING:
    import torch


ROUNDS = 3
"""How many times a shot prunes and updates."""
STEPS = 12
"""Steps of conjugate gradients per round; more of them gain less than recovery does in the same time."""


def surgeon_scores(weight: "torch.Tensor", inputs: "torch.Tensor", gradients: "torch.Tensor") -> "torch.Tensor":
    """The square root of each weight's score. Shapes: (outputs, inputs), (inputs, inputs) and (outputs, outputs)."""
    return kfac_scores(weight, inputs.diagonal(), gradients.diagonal())


SURGEON = Method(
    name="surgeon",
    scopes=("global",),
    summary="Pruned by the LLM Surgeon's method, with the remaining weights updated to compensate: the weights whose "
    "removal adds least to the loss (a second-order estimate)",
    source="van der Ouderaa et al. (2024), The LLM Surgeon",
    on_gradients=OnGradients(input_products, surgeon_scores, partial(fitted, steps=STEPS), ROUNDS),
)
