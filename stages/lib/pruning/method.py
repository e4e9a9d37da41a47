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
    """None if the scores follow from the base or a seed: stages/lib/recipes recomputes them when a model is loaded."""
