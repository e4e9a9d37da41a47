"""Prunes by any method: scores, budgets and calibration in, a recipe out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stages.lib.inference.calibration import Calibration
from stages.lib.pruning.budgets import pruned_count, spread_by_importance
from stages.lib.pruning.method import Method
from stages.lib.pruning.methods import method_named, resolve_scope
from stages.lib.pruning.selection import select
from stages.lib.recipes.choosing import spread
from stages.lib.recipes.magnitude import MagnitudePruned
from stages.lib.recipes.recipe import write_changed, write_recipe
from stages.lib.recipes.scoped_mask import ScopedMask, ScopedMethod
from stages.lib.recipes.stored_mask import StoredMask
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params, Prune


def prune(checkpoint: Checkpoint, params: "Params", folder: Path) -> None:
    """Prune a base, and write the recipe into a folder. Raises UserError if scope or text do not fit the model."""
    settings = params.prune
    method, scope = method_named(settings.method), resolve_scope(settings.method, settings.scope)
    prunable = checkpoint.structure.prunable
    k = pruned_count(settings, sum(map(checkpoint.size, prunable)))
    recipe: MagnitudePruned | ScopedMask | StoredMask
    if scope == "global":
        recipe = MagnitudePruned.at(checkpoint, "blocks", select(checkpoint, prunable, k))
        write_recipe(recipe, folder)
    else:
        calibration = Calibration(checkpoint, params, settings.calibration_tokens, "prune.calibration_tokens")
        counts = _block_counts(checkpoint, k, settings, calibration)
        if method.on_text:
            recipe = _prune_on_text(method, scope, counts, calibration, folder)
        else:
            recipe = ScopedMask.of(checkpoint, cast(ScopedMethod, method.name), scope, counts, params.seed)
            write_recipe(recipe, folder)
    if recipe.pruned != k:
        raise AssertionError(f"{recipe.pruned} weights masked, not {k}")


def _block_counts(checkpoint: Checkpoint, k: int, settings: "Prune", calibration: Calibration) -> list[int]:
    """How many weights each block loses."""
    sizes = [sum(matrix.size for matrix in matrices) for matrices in checkpoint.structure.matrices]
    if settings.budget == "uniform":
        return list(map(int, spread(k, sizes)))
    from stages.lib.pruning.importance import block_sensitivities, outlier_shares

    if settings.budget == "owl":
        importance = outlier_shares(calibration.loaded, calibration.windows)
    else:
        importance = block_sensitivities(calibration.loaded, calibration.windows, settings.sparsity)
    return list(map(int, spread_by_importance(k, sizes, importance)))


def _prune_on_text(
    method: Method, scope: str, counts: Sequence[int], calibration: Calibration, folder: Path
) -> StoredMask:
    """Prune by a method that reads text; its masks, and the weights that it changes, are written into the folder."""
    from stages.lib.pruning.calibrated import calibrated_masks

    assert method.on_text is not None
    loaded, checkpoint = calibration.loaded, calibration.loaded.checkpoint
    masks = calibrated_masks(loaded, calibration.windows, counts, method.on_text, scope)
    recipe = StoredMask.store(checkpoint, method.name, masks, folder)
    if method.on_text.changes_weights:
        weights = {name: loaded.weights[name] for name in checkpoint.structure.prunable}
        write_changed(recipe, weights, method.name, checkpoint, folder)
    else:
        write_recipe(recipe, folder)
    return recipe
