"""The interface of all kinds of recipe: base, files beside `recipe.json`, and how it is applied.

A recipe is a folder with a `recipe.json` and, for some kinds, one more file. It names the SHA-256 of its base
and of its result, so it is refused on any other base, and a wrong result is never used. The one exception is the
original, which changes nothing and therefore fits every base.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from stages.lib.files.errors import UserError
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.structure import Structure

if TYPE_CHECKING:
    import torch

Digest: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass
class Materialized:
    """A model without a model class: the content of its Hugging Face folder."""

    checkpoint: Checkpoint
    """Where the weights come from; its folder has the tokenizer and everything else that no recipe changes."""
    config: dict[str, Any]
    weights: "dict[str, torch.Tensor]"
    """By name, a tied head not at all; merged blocks have one tensor under several names."""
    masks: "dict[str, torch.Tensor]" = field(default_factory=dict)
    """By name, True where pruned."""

    @property
    def structure(self) -> Structure:
        """That of `config`, which may have fewer blocks than the checkpoint."""
        from stages.lib.weights.module_tree import structure_of

        return structure_of(self.config, self.checkpoint.folder)


def first_names(weights: "Mapping[str, torch.Tensor]") -> dict[str, str]:
    """By each name, the first name that the same tensor has."""
    first: dict[int, str] = {}
    return {name: first.setdefault(id(weight), name) for name, weight in weights.items()}


class Kind(BaseModel):
    """A kind of recipe: its fields are those of `recipe.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @property
    def files(self) -> frozenset[str]:
        """The names of the files beside `recipe.json`."""
        return frozenset()

    @property
    def unchanged(self) -> "Kind":
        """This recipe without later changes to its weights."""
        return self

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        """The checkpoint that this recipe applies to. Raises UserError if that is damaged or the wrong one."""
        raise NotImplementedError

    def apply(self, model: Materialized, folder: Path) -> None:
        """Turn the base into this model, in place. Raises UserError if a file of the recipe or the result is wrong."""


class OverBase(Kind):
    """A recipe over the base that it names."""

    if TYPE_CHECKING:  # a field of each kind, in its place in `recipe.json`
        base_sha256: Digest

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        return checked_base(checkpoint, self.base_sha256)


def checked_base(checkpoint: Checkpoint, wanted: str) -> Checkpoint:
    """The checkpoint itself. Raises UserError unless it has the wanted SHA-256."""
    if checkpoint.sha256 != wanted:
        raise UserError(
            f"{checkpoint.path}: has sha256 {checkpoint.sha256[:12]}…, the recipe is for base "
            f"{wanted[:12]}…; run `dvc repro`; `python -m stages.verify` finds damage"
        )
    return checkpoint
