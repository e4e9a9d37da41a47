"""Recipes: a compressed model as what has to be done to its base checkpoint.

A recipe is a folder with a `recipe.json`. It names the SHA-256 of its base and of the mask that
must come out, so it is refused on any other base, and a wrong mask is never used. The one
exception is the original, which does nothing and therefore fits every base.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stages.lib.artifacts import write_json
from stages.lib.checkpoint import Checkpoint
from stages.lib.errors import UserError
from stages.lib.families import prunable_weights
from stages.lib.masks import Mask, MaskDigest, magnitude_masks
from stages.lib.selection import Threshold, select

RECIPE = "recipe.json"

_Digest: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Original(BaseModel):
    """The base checkpoint as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["original"] = "original"


class MagnitudePruned(BaseModel):
    """The base with its `pruned` smallest prunable magnitudes set to zero."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["magnitude"] = "magnitude"
    base_sha256: _Digest
    threshold_bits: Annotated[str, Field(pattern="^0x[0-7][0-9a-f]{7}$")]
    """The threshold's float32, as hexadecimal bits: no decimal rounds them."""
    ties: Annotated[int, Field(ge=0)]
    """How many weights of exactly the threshold's magnitude are pruned, the first in state-dict order."""
    pruned: Annotated[int, Field(ge=0)]
    mask_sha256: _Digest

    @property
    def threshold(self) -> Threshold:
        return Threshold(bits=int(self.threshold_bits, 16), ties=self.ties)


Recipe: TypeAlias = Original | MagnitudePruned

_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def prune_by_magnitude(model: Path, checkpoint: Checkpoint, k: int) -> MagnitudePruned:
    """The recipe that prunes exactly the k smallest prunable magnitudes of a base model.

    Raises UserError if a prunable weight is NaN or infinite.
    """
    names = prunable_weights(model)
    threshold = select(checkpoint, names, k)
    digest = MaskDigest()
    for _, mask in magnitude_masks(checkpoint, names, threshold):
        digest.add(mask)
    if digest.pruned != k:
        raise AssertionError(f"{digest.pruned} weights masked, not {k}")
    return MagnitudePruned(
        base_sha256=checkpoint.sha256,
        threshold_bits=f"{threshold.bits:#010x}",
        ties=threshold.ties,
        pruned=k,
        mask_sha256=digest.hexdigest(),
    )


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe into its folder."""
    write_json(folder / RECIPE, recipe.model_dump())


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe from its folder. Raises UserError if there is none, or it is damaged."""
    path = folder / RECIPE
    try:
        return _RECIPE.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; `dvc repro prune` or `dvc checkout` brings it") from None
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"])) or "the file"
        raise UserError(f"{path}: damaged ({where}: {what['msg']}); remove it and run `dvc checkout`") from None


def pruned_masks(recipe: Recipe, model: Path) -> Iterator[tuple[str, Mask]]:
    """The mask of each pruned tensor of a base model, recomputed in one pass.

    The base is checked before the first mask, the masks' digest after the last one; use none of
    them before the iterator has ended. Raises UserError if either is not what the recipe says.
    """
    if isinstance(recipe, Original):
        return
    checkpoint = Checkpoint(model)
    if checkpoint.sha256 != recipe.base_sha256:
        raise UserError(
            f"{checkpoint.path}: has sha256 {checkpoint.sha256[:12]}…, the recipe is for base "
            f"{recipe.base_sha256[:12]}…; run `dvc repro`, or `dvc checkout` if a file was damaged"
        )
    digest = MaskDigest()
    for name, mask in magnitude_masks(checkpoint, prunable_weights(model), recipe.threshold):
        digest.add(mask)
        yield name, mask
    if (digest.hexdigest(), digest.pruned) != (recipe.mask_sha256, recipe.pruned):
        raise UserError("the recomputed mask is not the recipe's; remove the recipe and run `dvc checkout`")
