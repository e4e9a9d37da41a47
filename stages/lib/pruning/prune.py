"""Prunes by any method: scores, budgets and calibration in, a recipe out."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stages.lib.inference.calibration import Calibration
from stages.lib.pruning.budgets import pruned_count, spread_by_importance
from stages.lib.pruning.method import Method
from stages.lib.pruning.methods import method_named, resolve_scope
from stages.lib.pruning.selection import select
from stages.lib.recipes.choosing import MatrixCounts, shared_by_matrices, spread
from stages.lib.recipes.magnitude import MagnitudePruned
from stages.lib.recipes.masks import Mask
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
    calibration = Calibration(checkpoint, params, settings.calibration_tokens, "prune.calibration_tokens")
    recipe: MagnitudePruned | ScopedMask | StoredMask
    if method.reads_text:
        masks = _masks_on_text(method, scope, k, settings, calibration)
        recipe = StoredMask.store(checkpoint, method.name, masks, folder)
    elif scope == "global":
        recipe = MagnitudePruned.at(checkpoint, "blocks", select(checkpoint, prunable, k))
    else:
        counts = _block_counts(checkpoint, k, settings, calibration)
        recipe = ScopedMask.of(checkpoint, cast(ScopedMethod, method.name), scope, counts, params.seed)
    if recipe.pruned != k:
        raise AssertionError(f"{recipe.pruned} weights masked, not {k}")
    changed_by = method.name if method.changes_weights else ""
    if settings.update == "outputs":
        from stages.lib.pruning.calibrated import fit_outputs

        fit_outputs(calibration.loaded, calibration.windows, dict(recipe.masks(checkpoint, folder)))
        changed_by = "outputs"
    if changed_by:
        weights = {name: calibration.loaded.weights[name] for name in prunable}
        write_changed(recipe, weights, changed_by, checkpoint, folder)
    else:
        write_recipe(recipe, folder)


def _masks_on_text(
    method: Method, scope: str, k: int, settings: "Prune", calibration: Calibration
) -> Iterable[tuple[str, Mask]]:
    """The masks of a method that reads text. The calibration's model may be pruned along the way."""
    from stages.lib.pruning.calibrated import calibrated_masks
    from stages.lib.pruning.gradual import masks_within, prune_over_all

    loaded, windows = calibration.loaded, calibration.windows
    if method.on_gradients and scope == "global":
        return prune_over_all(loaded, windows, method.on_gradients, k, settings.shots).items()
    counts = _matrix_counts(k, settings, calibration)
    if method.on_gradients:
        return masks_within(loaded, windows, method.on_gradients, counts, scope).items()
    assert method.on_text is not None
    return calibrated_masks(loaded, windows, counts, method.on_text, scope)


def _matrix_counts(k: int, settings: "Prune", calibration: Calibration) -> MatrixCounts:
    """How many weights each matrix loses; a block's share is split in proportion to the matrices' sizes."""
    checkpoint = calibration.loaded.checkpoint
    if settings.budget == "curvature":
        from stages.lib.pruning.importance import curvature_counts

        return curvature_counts(calibration.loaded, calibration.windows, k)
    counts = _block_counts(checkpoint, k, settings, calibration)
    return shared_by_matrices(counts, checkpoint.structure.matrices)


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
