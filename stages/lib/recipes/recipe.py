"""Recipes: a compressed model as what has to be done to its base checkpoint.

A recipe is a folder with a `recipe.json`, and beside it `permutations.safetensors` where it merges
neurons, `masks.bin` where its mask cannot be recomputed, and `changes.safetensors` where weights
that stay are not what they were. It names the SHA-256 of its base and of what must come out, so it is
refused on any other base, and a wrong result is never used. The one exception is the original, which
does nothing and therefore fits every base.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from stages.lib.files.writing import write_json
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.files.errors import UserError
from stages.lib.weights.families import family_of, prunable_weights, tied_head
from stages.lib.recipes.masks import Mask, MaskDigest, magnitude_masks
from stages.lib.recipes.scoped import scoped_masks
from stages.lib.pruning.scopes import CalibratedMethod, pattern_of
from stages.lib.pruning.selection import Threshold, select
from stages.lib.recipes.stored import MASKS, read_masks, write_masks

RECIPE = "recipe.json"
PERMUTATIONS = "permutations.safetensors"
CHANGES = "changes.safetensors"

_Digest: TypeAlias = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Original(BaseModel):
    """The base checkpoint as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["original"] = "original"


Part: TypeAlias = Literal["blocks", "tied-head"]
"""Which weights a mask is chosen from: all matrices of the blocks, or the embedding that is the head too."""


class MagnitudePruned(BaseModel):
    """The base with the `pruned` smallest magnitudes of a part of it set to zero."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["magnitude"] = "magnitude"
    base_sha256: _Digest
    part: Part = "blocks"
    threshold_bits: Annotated[str, Field(pattern="^0x[0-7][0-9a-f]{7}$")]
    """The threshold's float32, as hexadecimal bits: no decimal rounds them."""
    ties: Annotated[int, Field(ge=0)]
    """How many weights of exactly the threshold's magnitude are pruned, the first in state-dict order."""
    pruned: Annotated[int, Field(ge=0)]
    mask_sha256: _Digest

    @property
    def threshold(self) -> Threshold:
        return Threshold(bits=int(self.threshold_bits, 16), ties=self.ties)


class ScopedMask(BaseModel):
    """The base with the smallest scores of each matrix, row or N:M group set to zero.

    For methods whose scores follow from the base or from a seed: their masks are made again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["scoped"] = "scoped"
    base_sha256: _Digest
    method: Literal["magnitude", "random"]
    scope: str
    """layer, row or N:M."""
    pruned_by_block: list[Annotated[int, Field(ge=0)]]
    seed: Annotated[int, Field(ge=0)] = 0
    """Of random scores."""
    mask_sha256: _Digest

    @field_validator("scope")
    @classmethod
    def _within_a_matrix(cls, scope: str) -> str:
        if scope not in ("layer", "row") and pattern_of(scope) is None:
            raise ValueError("not a scope within a matrix")
        return scope

    @property
    def pruned(self) -> int:
        return sum(self.pruned_by_block)


class StoredMask(BaseModel):
    """The base with the weights of a stored mask set to zero.

    For methods whose scores depend on data: those cannot be recomputed to the bit elsewhere.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["mask"] = "mask"
    base_sha256: _Digest
    method: CalibratedMethod
    compressed: bool
    """Whether the packed bits are compressed with zstd."""
    pruned: Annotated[int, Field(ge=0)]
    mask_sha256: _Digest


class KeptBlocks(BaseModel):
    """The base with some of its blocks only, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["kept-blocks"] = "kept-blocks"
    base_sha256: _Digest
    blocks: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @field_validator("blocks")
    @classmethod
    def _in_order(cls, blocks: list[int]) -> list[int]:
        if blocks != sorted(set(blocks)):
            raise ValueError("blocks are not in order")
        return blocks


class MergedFeedForward(BaseModel):
    """The base with the feed-forwards of each group of n blocks aligned and averaged.

    `permutations.safetensors` holds, for each block but a group's first, by its number, which of
    its neurons goes to the place of each of the first block's. The averages follow from these and
    the base to the bit, so they are not stored.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["merged"] = "merged"
    base_sha256: _Digest
    n: Annotated[int, Field(ge=1)]
    anchor_only: bool
    """Whether only a group's first block uses the average, or all of them."""
    merged_sha256: _Digest
    """Of the averaged tensors, group by group, in the order of the family."""


class OtherCheckpoint(BaseModel):
    """Another pretrained model, normalized as the base was."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["checkpoint"] = "checkpoint"
    folder: Literal["distilled"] = "distilled"
    """Beside the base's."""
    sha256: _Digest


Pruned: TypeAlias = MagnitudePruned | ScopedMask | StoredMask
Shrunk: TypeAlias = Pruned | KeptBlocks | MergedFeedForward | OtherCheckpoint


class Changed(BaseModel):
    """What another recipe gives, with changes to its weights: `changes.safetensors` holds them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Literal["changed"] = "changed"
    of: Annotated[Shrunk, Field(discriminator="kind")]
    by: Literal["sparsegpt", "recovery"]
    changes_sha256: _Digest


Recipe: TypeAlias = Original | Shrunk | Changed

_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def recipe_folder(model: str) -> Path:
    """Where the recipe of a model is, as the model is measured: after recovery, whether it has steps or none."""
    return Path("data/original") if model == "original" else Path("data/recovered") / model


def weights_in(part: Part, model: Path) -> list[str]:
    """The names of the tensors that a part's masks are chosen from. Raises UserError if there are none."""
    return prunable_weights(model) if part == "blocks" else tied_head(model)


def prune_by_magnitude(model: Path, checkpoint: Checkpoint, k: int, part: Part = "blocks") -> MagnitudePruned:
    """The recipe that prunes exactly the k smallest magnitudes of a part of a base model.

    Raises UserError if a weight in the part is NaN or infinite.
    """
    names = weights_in(part, model)
    threshold = select(checkpoint, names, k)
    digest = MaskDigest()
    for _, mask in magnitude_masks(checkpoint, names, threshold):
        digest.add(mask)
    if digest.pruned != k:
        raise AssertionError(f"{digest.pruned} weights masked, not {k}")
    return MagnitudePruned(
        base_sha256=checkpoint.sha256,
        part=part,
        threshold_bits=f"{threshold.bits:#010x}",
        ties=threshold.ties,
        pruned=k,
        mask_sha256=digest.hexdigest(),
    )


def prune_in_scope(
    checkpoint: Checkpoint,
    method: Literal["magnitude", "random"],
    scope: str,
    block_counts: Sequence[int],
    seed: int,
) -> ScopedMask:
    """The recipe that prunes the smallest scores of each scope; each block loses its count of weights.

    Raises UserError if M of a scope N:M does not divide a matrix's inputs.
    """
    digest = MaskDigest()
    for _, mask in scoped_masks(checkpoint, family_of(checkpoint.folder), method, scope, block_counts, seed):
        digest.add(mask)
    return ScopedMask(
        base_sha256=checkpoint.sha256,
        method=method,
        scope=scope,
        pruned_by_block=list(block_counts),
        seed=seed,
        mask_sha256=digest.hexdigest(),
    )


def store_mask(
    checkpoint: Checkpoint, method: CalibratedMethod, masks: Iterable[tuple[str, Mask]], folder: Path
) -> StoredMask:
    """Write the masks of a base's prunable tensors into a recipe's folder; the recipe that uses them."""
    digest, compressed = write_masks(masks, folder)
    return StoredMask(
        base_sha256=checkpoint.sha256,
        method=method,
        compressed=compressed,
        pruned=digest.pruned,
        mask_sha256=digest.hexdigest(),
    )


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe's `recipe.json` into its folder."""
    write_json(folder / RECIPE, recipe.model_dump())


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe from its folder.

    Raises UserError if there is none, it is damaged, or the folder holds anything beside it.
    """
    path = folder / RECIPE
    try:
        recipe = _RECIPE.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; `dvc repro` or `dvc checkout` brings it") from None
    except ValidationError as error:
        what = error.errors()[0]
        where = ".".join(map(str, what["loc"])) or "the file"
        raise UserError(
            f"{path}: damaged ({where}: {what['msg']}); `python -m stages.verify` tells how to mend it"
        ) from None
    expected = _files(recipe)
    found = {file.name for file in folder.iterdir()}
    if found - expected:
        raise UserError(
            f"{folder}: holds {min(found - expected)} beside a recipe of kind {recipe.kind}; "
            "one folder holds one recipe: remove the other"
        )
    if expected - found:
        raise UserError(f"{folder}: lacks {min(expected - found)}; `python -m stages.verify` tells how to mend it")
    return recipe


def _files(recipe: Recipe) -> set[str]:
    """The names of what a recipe's folder holds."""
    if isinstance(recipe, Changed):
        return {*_files(recipe.of), CHANGES}
    beside = {"merged": PERMUTATIONS, "mask": MASKS}
    return {RECIPE, beside.get(recipe.kind, RECIPE)}


def unchanged(recipe: Recipe) -> Original | Shrunk:
    """A recipe without the changes to its weights: what was pruned, kept or merged."""
    return recipe.of if isinstance(recipe, Changed) else recipe


def check_base(recipe: Original | Shrunk, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that is damaged, or that a recipe is not for: raises UserError."""
    found = checkpoint.sha256
    if isinstance(recipe, Original):
        return
    wanted = recipe.sha256 if isinstance(recipe, OtherCheckpoint) else recipe.base_sha256
    if found != wanted:
        raise UserError(
            f"{checkpoint.path}: has sha256 {checkpoint.sha256[:12]}…, the recipe is for base "
            f"{wanted[:12]}…; run `dvc repro`; `python -m stages.verify` finds damage"
        )


def pruned_masks(recipe: Pruned, folder: Path, checkpoint: Checkpoint) -> Iterator[tuple[str, Mask]]:
    """The mask of each pruned tensor of a base, recomputed in one pass, or read from the recipe's folder.

    The masks' digest is checked after the last one; use none of them before the iterator has
    ended. Raises UserError if it is not what the recipe says.
    """
    if isinstance(recipe, MagnitudePruned):
        masks = magnitude_masks(checkpoint, weights_in(recipe.part, checkpoint.folder), recipe.threshold)
    elif isinstance(recipe, ScopedMask):
        family = family_of(checkpoint.folder)
        masks = scoped_masks(checkpoint, family, recipe.method, recipe.scope, recipe.pruned_by_block, recipe.seed)
    else:
        shapes = [(name, checkpoint.shape(name)) for name in prunable_weights(checkpoint.folder)]
        masks = read_masks(folder, shapes, recipe.compressed)
    digest = MaskDigest()
    for name, mask in masks:
        digest.add(mask)
        yield name, mask
    if (digest.hexdigest(), digest.pruned) != (recipe.mask_sha256, recipe.pruned):
        raise UserError(f"{folder}: the mask is not the recipe's; `python -m stages.verify` tells how to mend it")
