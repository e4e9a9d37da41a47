"""Reads, writes and applies recipes of any kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from stages.lib.files.errors import UserError
from stages.lib.files.places import LOSSES
from stages.lib.files.writing import write_json
from stages.lib.recipes.changed import Changed, Unchanged, write_changes
from stages.lib.recipes.kind import Kind, Materialized, first_names
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.original import Original
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

RECIPE = "recipe.json"

Recipe: TypeAlias = Original | Unchanged | Changed | LeftOut

_RECIPE: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="kind")])


def write_recipe(recipe: Recipe, folder: Path) -> None:
    """Write a recipe's `recipe.json` into its folder."""
    write_json(folder / RECIPE, recipe.model_dump())


def read_recipe(folder: Path) -> Recipe:
    """Read a recipe from its folder. Raises UserError if it is missing or damaged, or not the folder's only content."""
    path = folder / RECIPE
    try:
        recipe = _RECIPE.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: not found; restore it with `dvc repro` or `dvc checkout`") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(
            f"{path}: damaged ({where}: {first['msg']}); `python -m stages.verify` prints the fix"
        ) from None
    expected = {RECIPE, *recipe.files}
    found = {file.name for file in folder.iterdir()} - {LOSSES}
    if found - expected:
        raise UserError(
            f"{folder}: holds {min(found - expected)} beside a recipe of kind {recipe.kind}; "
            "one folder holds one recipe: remove the other"
        )
    if expected - found:
        raise UserError(f"{folder}: lacks {min(expected - found)}; `python -m stages.verify` prints the fix")
    return recipe


def materialize(checkpoint: Checkpoint, folder: Path) -> Materialized:
    """Apply the recipe in `folder` to a base checkpoint, which is hashed once for all its recipes.

    Raises UserError if either is missing or damaged, or the recipe is for another base.
    """
    return apply(read_recipe(folder), checkpoint, folder)


def apply(recipe: Kind, checkpoint: Checkpoint, folder: Path) -> Materialized:
    """Apply a recipe, with the files beside it in `folder`, to a base checkpoint. Raises as `materialize` does."""
    base = recipe.base(checkpoint)
    model = Materialized(base, base.config, base.tensors())
    recipe.apply(model, folder)
    return model


def write_changed(
    recipe: Unchanged, weights: "Mapping[str, torch.Tensor]", by: str, checkpoint: Checkpoint, folder: Path
) -> Changed:
    """Write a recipe with changed weights into its folder; `weights` may leave out tensors that did not change."""
    write_recipe(recipe, folder)
    digest = write_changes(materialize(checkpoint, folder), weights, folder)
    changed = Changed(of=recipe, by=by, changes_sha256=digest)
    write_recipe(changed, folder)
    return changed


def size_of(model: Materialized, folder: Path) -> dict[str, int]:
    """Parameters of a model, and the bytes that it takes: of its recipe, or of the weights for the original.

    `pruned_weights` are prunable weights that a mask sets to zero. A tied tensor counts once; one that several merged
    blocks share counts once in `distinct_parameters` and once for each block elsewhere, as the study counts.
    """
    import torch

    prunable = model.structure.prunable
    recipe = read_recipe(folder)
    stored = [folder / name for name in (RECIPE, *recipe.files)]
    if isinstance(recipe, Original):
        stored = model.checkpoint.files
    return {
        "total_parameters": sum(weight.numel() for weight in model.weights.values()),
        "distinct_parameters": sum(model.weights[name].numel() for name in set(first_names(model.weights).values())),
        "effective_parameters": sum(int(torch.count_nonzero(weight)) for weight in model.weights.values()),
        "prunable_weights": sum(model.weights[name].numel() for name in prunable),
        "pruned_weights": sum(int(torch.count_nonzero(model.masks[name])) for name in prunable if name in model.masks),
        "stored_bytes": sum(path.stat().st_size for path in stored),
    }


def apart(weights: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The same weights as tensors that share no memory, as the averages of merged blocks do."""
    first = first_names(weights)
    return {name: weight if first[name] == name else weight.clone() for name, weight in weights.items()}
