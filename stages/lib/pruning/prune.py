"""Prunes by any method: scores, budgets and calibration in, a recipe out."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stages.lib.files.places import MODEL, TEXT
from stages.lib.pruning.budgets import pruned_count, spread_by_importance
from stages.lib.pruning.method import Method
from stages.lib.pruning.methods import method_named, resolve_scope
from stages.lib.pruning.selection import select
from stages.lib.recipes.choosing import spread
from stages.lib.recipes.magnitude import MagnitudePruned
from stages.lib.recipes.recipe import write_changed, write_recipe
from stages.lib.recipes.scoped import ScopedMask, ScopedMethod
from stages.lib.recipes.stored import StoredMask
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.families import family_of, prunable_weights, read_config

if TYPE_CHECKING:
    import torch

    from stages.lib.inference.loading import Loaded
    from stages.lib.plumbing.params import Params


class Calibration:
    """The unpruned model and windows of text that is not scored; each is loaded when first used."""

    def __init__(self, params: "Params") -> None:
        self._params = params

    @cached_property
    def loaded(self) -> "Loaded":
        from stages.lib.inference.device import set_up
        from stages.lib.inference.loading import load_original

        return load_original(MODEL, set_up(self._params.compute, self._params.seed))

    @cached_property
    def windows(self) -> "Sequence[torch.Tensor]":
        from stages.lib.corpora.unscored import unscored_documents
        from stages.lib.inference.calibration import calibration_windows

        tokens = self._params.prune.calibration_tokens
        return calibration_windows(self.loaded, unscored_documents(TEXT), tokens, "prune.calibration_tokens")


def prune(checkpoint: Checkpoint, params: "Params", folder: Path) -> None:
    """Prune a base checkpoint as `params.prune` says, and write the recipe into a folder.

    Raises UserError if the text is too short, or the scope does not fit the model.
    """
    settings = params.prune
    method, scope = method_named(settings.method), resolve_scope(settings.method, settings.scope)
    names = prunable_weights(checkpoint.folder)
    k = pruned_count(settings, sum(map(checkpoint.size, names)))
    recipe: MagnitudePruned | ScopedMask | StoredMask
    if scope == "global":
        recipe = MagnitudePruned.at(checkpoint, "blocks", select(checkpoint, names, k))
        write_recipe(recipe, folder)
    else:
        calibration = Calibration(params)
        counts = _block_counts(checkpoint, k, params, calibration)
        if method.on_text:
            recipe = _prune_on_text(checkpoint, method, scope, counts, calibration, folder)
        else:
            recipe = ScopedMask.of(checkpoint, cast(ScopedMethod, method.name), scope, counts, params.seed)
            write_recipe(recipe, folder)
    if recipe.pruned != k:
        raise AssertionError(f"{recipe.pruned} weights masked, not {k}")


def _block_counts(checkpoint: Checkpoint, k: int, params: "Params", calibration: Calibration) -> list[int]:
    """How many weights each block loses."""
    family, budget = family_of(checkpoint.folder), params.prune.budget
    sizes = [
        sum(checkpoint.size(family.weight(block, matrix)) for matrix in family.matrices)
        for block in range(family.depth(read_config(checkpoint.folder)))
    ]
    if budget == "uniform":
        return list(map(int, spread(k, sizes)))
    from stages.lib.pruning.importance import block_sensitivities, outlier_shares

    if budget == "owl":
        importance = outlier_shares(calibration.loaded, family, calibration.windows)
    else:
        importance = block_sensitivities(
            calibration.loaded, checkpoint, family, calibration.windows, params.prune.sparsity
        )
    return list(map(int, spread_by_importance(k, sizes, importance)))


def _prune_on_text(
    checkpoint: Checkpoint,
    method: Method,
    scope: str,
    counts: Sequence[int],
    calibration: Calibration,
    folder: Path,
) -> StoredMask:
    """Prune by a method that reads text; its masks, and the weights that it changes, are written into the folder."""
    from stages.lib.pruning.calibrated import calibrated_masks

    assert method.on_text is not None
    family, loaded = family_of(checkpoint.folder), calibration.loaded
    masks = calibrated_masks(loaded, family, calibration.windows, counts, method.on_text, scope)
    recipe = StoredMask.store(checkpoint, method.name, masks, folder)
    if method.on_text.changes_weights:
        weights = {name: loaded.model.get_parameter(name).data for name in prunable_weights(checkpoint.folder)}
        write_changed(recipe, weights, method.name, checkpoint, folder)
    else:
        write_recipe(recipe, folder)
    return recipe
