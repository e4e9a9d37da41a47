"""Choose exactly k of the prunable weights, and write the recipe and its counts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.artifacts import new_folder, significant, write_json
from stages.lib.params import Params, load_params

if TYPE_CHECKING:
    from stages.lib.checkpoint import Checkpoint
    from stages.lib.recipes import StoredMask

MODEL = Path("data/model")
TEXT = Path("data/text")
ORIGINAL = Path("data/original")
OUT = Path("data/pruned")
METRICS = Path("metrics/prune.json")


def prune_by_wanda(checkpoint: "Checkpoint", k: int, params: Params, folder: Path) -> "StoredMask":
    """Take calibration text through the model; write the mask, and the recipe that uses it."""
    from stages.lib.calibration import calibration_windows
    from stages.lib.compute import set_up
    from stages.lib.corpora.rows import read_rows
    from stages.lib.families import family_of
    from stages.lib.models import load
    from stages.lib.recipes import store_mask
    from stages.lib.wanda import wanda_masks

    loaded = load(MODEL, ORIGINAL, set_up(params.compute, params.seed))
    documents = read_rows(TEXT, "train")["text"].tolist()
    windows = calibration_windows(loaded, documents, params.prune.calibration_tokens, "prune.calibration_tokens")
    return store_mask(checkpoint, "wanda", wanda_masks(loaded, family_of(MODEL), windows, k), folder)


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.checkpoint import Checkpoint
    from stages.lib.counts import count, count_masked
    from stages.lib.families import prunable_weights
    from stages.lib.recipes import Pruned, prune_by_magnitude, pruned_masks, write_recipe

    checkpoint = Checkpoint(MODEL)
    counts = count(checkpoint, prunable_weights(MODEL))
    k = round(params.prune.sparsity * counts.prunable)
    with new_folder(OUT) as folder:
        recipe: Pruned
        if params.prune.method == "magnitude":
            recipe = prune_by_magnitude(MODEL, checkpoint, k)
            write_recipe(recipe, folder)
        else:
            recipe = prune_by_wanda(checkpoint, k, params, folder)
        pruned, already_zero = count_masked(checkpoint, pruned_masks(recipe, folder, checkpoint))
    assert pruned == k, f"{pruned} weights masked, not {k}"
    write_json(
        METRICS,
        {
            "total_parameters": counts.total,
            "prunable_weights": counts.prunable,
            "zeros_before": counts.zeros,
            "pruned_weights": pruned,
            "effective_parameters": counts.effective(pruned, already_zero),
            "sparsity": significant(pruned / counts.prunable),
        },
    )


if __name__ == "__main__":
    command.run("prune", main, argparse.ArgumentParser(prog="python -m stages.prune", description=__doc__))
