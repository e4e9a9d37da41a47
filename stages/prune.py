"""Choose exactly k of the prunable weights, and write the recipe and its counts."""

import argparse
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.files.writing import new_folder, significant, write_json
from stages.lib.plumbing.params import Params, load_params
from stages.lib.pruning.scopes import CalibratedMethod, resolve_scope

if TYPE_CHECKING:
    import torch

    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.inference.loading import Loaded
    from stages.lib.recipes.recipe import Changed, Pruned, StoredMask

MODEL = Path("data/model")
TEXT = Path("data/text")
ORIGINAL = Path("data/original")
OUT = Path("data/pruned")
METRICS = Path("metrics/prune.json")


class Calibration:
    """The unpruned model, and windows of text that is not scored; neither is loaded before it is used."""

    def __init__(self, params: Params) -> None:
        self._params = params

    @cached_property
    def loaded(self) -> "Loaded":
        from stages.lib.inference.device import set_up
        from stages.lib.inference.loading import load

        return load(MODEL, ORIGINAL, set_up(self._params.compute, self._params.seed))

    @cached_property
    def windows(self) -> "Sequence[torch.Tensor]":
        from stages.lib.inference.calibration import calibration_windows
        from stages.lib.corpora.unscored import unscored_documents

        tokens = self._params.prune.calibration_tokens
        return calibration_windows(self.loaded, unscored_documents(TEXT), tokens, "prune.calibration_tokens")


def block_counts(checkpoint: "Checkpoint", k: int, params: Params, calibration: Calibration) -> list[int]:
    """How many weights each block loses."""
    from stages.lib.pruning.budgets import spread, spread_by_importance
    from stages.lib.weights.families import family_of, read_config

    family, budget = family_of(MODEL), params.prune.budget
    sizes = [
        sum(checkpoint.size(family.weight(block, matrix)) for matrix in family.matrices)
        for block in range(family.depth(read_config(MODEL)))
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


def prune_on_text(
    checkpoint: "Checkpoint",
    method: CalibratedMethod,
    scope: str,
    counts: Sequence[int],
    calibration: Calibration,
    folder: Path,
) -> "StoredMask | Changed":
    """Prune by what the weights multiply; masks, and what became of the other weights, go into the folder."""
    from stages.lib.pruning.calibrated import calibrated_masks
    from stages.lib.changed_recipe import changed_recipe
    from stages.lib.weights.families import family_of, prunable_weights
    from stages.lib.recipes.recipe import store_mask

    loaded = calibration.loaded
    masks = calibrated_masks(loaded, family_of(MODEL), calibration.windows, counts, method, scope)
    recipe = store_mask(checkpoint, method, masks, folder)
    if method != "sparsegpt":
        return recipe
    weights = {name: loaded.model.get_parameter(name).data for name in prunable_weights(MODEL)}
    return changed_recipe(recipe, weights, "sparsegpt", checkpoint, folder)


def choose(checkpoint: "Checkpoint", k: int, params: Params, folder: Path) -> "Pruned | Changed":
    """Choose k weights; the recipe, with what it needs beside it in the folder."""
    from stages.lib.recipes.recipe import prune_by_magnitude, prune_in_scope

    method, scope = params.prune.method, resolve_scope(params.prune.method, params.prune.scope)
    if scope == "global":
        return prune_by_magnitude(MODEL, checkpoint, k)
    calibration = Calibration(params)
    counts = block_counts(checkpoint, k, params, calibration)
    if method == "magnitude" or method == "random":  # noqa: PLR1714 (what mypy narrows)
        return prune_in_scope(checkpoint, method, scope, counts, params.seed)
    return prune_on_text(checkpoint, method, scope, counts, calibration, folder)


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.recipes.counts import count, count_pruned
    from stages.lib.weights.families import prunable_weights
    from stages.lib.recipes.recipe import write_recipe

    checkpoint = Checkpoint(MODEL)
    counts = count(checkpoint, prunable_weights(MODEL))
    k = params.prune.pruned_of(counts.prunable)
    with new_folder(OUT) as folder:
        recipe = choose(checkpoint, k, params, folder)
        write_recipe(recipe, folder)
        pruned, effective = count_pruned(recipe, folder, checkpoint, counts)
    assert pruned == k, f"{pruned} weights masked, not {k}"
    write_json(
        METRICS,
        {
            "total_parameters": counts.total,
            "prunable_weights": counts.prunable,
            "zeros_before": counts.zeros,
            "pruned_weights": pruned,
            "effective_parameters": effective,
            "sparsity": significant(pruned / counts.prunable),
        },
    )


if __name__ == "__main__":
    command.run("prune", main, argparse.ArgumentParser(prog="python -m stages.prune", description=__doc__))
