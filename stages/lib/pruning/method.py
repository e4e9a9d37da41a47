"""The interface of a pruning method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stages.lib.recipes.masks import Mask

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class OnText:
    """The two functions of a method whose scores depend on text."""

    statistic: "Callable[[torch.Tensor], torch.Tensor]"
    """From a matrix's inputs, of shape (tokens, inputs), to a statistic that is summed over batches."""
    prune: "Callable[[torch.Tensor, torch.Tensor, str, int], Mask]"
    """From a matrix (outputs, inputs), its statistic, a scope and k to the mask of the k weights to prune."""
    changes_weights: bool = False
    """Whether `prune` also changes the remaining weights, in place."""


@dataclass(frozen=True)
class OnGradients:
    """The functions of a method whose scores depend on the gradients of a text's loss."""

    statistic: "Callable[[torch.Tensor], torch.Tensor]"
    """From a matrix's inputs, or the gradients with respect to its outputs, of shape (tokens, width), to a statistic
    that is summed over batches."""
    scores: "Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]"
    """From a matrix (outputs, inputs) and both statistics to float32 scores from 0 up; the smallest are pruned."""
    update: "Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None" = (
        None
    )
    """From an original matrix, its mask, both statistics and the matrix so far to the pruned and updated matrix."""
    rounds: int = 1
    """How many times a shot prunes and updates, with the same curvature."""


@dataclass(frozen=True)
class Method:
    """A pruning method, named by `prune.method` in `params.yaml`."""

    name: str
    scopes: tuple[str, ...]
    """global, layer, row or N:M; `auto` stands for the first."""
    summary: str
    """For the model card, whose sentence is "<summary> of each matrix are zero"."""
    source: str
    """The paper."""
    on_text: OnText | None = None
    on_gradients: OnGradients | None = None
    """If both are None, the scores follow from the base or a seed, and stages/lib/recipes recomputes them when a model
    is loaded."""

    @property
    def reads_text(self) -> bool:
        """Whether its scores depend on calibration text."""
        return bool(self.on_text or self.on_gradients)

    @property
    def changes_weights(self) -> bool:
        """Whether it also changes the remaining weights."""
        return bool((self.on_text and self.on_text.changes_weights) or (self.on_gradients and self.on_gradients.update))
