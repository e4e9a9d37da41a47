"""Choose exactly k of the prunable weights by magnitude, and write the recipe and its counts."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.lib.artifacts import new_folder, significant, write_json
from stages.lib.params import load_params

MODEL = Path("data/model")
OUT = Path("data/pruned")
METRICS = Path("metrics/prune.json")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.checkpoint import Checkpoint
    from stages.lib.counts import count
    from stages.lib.families import prunable_weights
    from stages.lib.recipes import prune_by_magnitude, write_recipe

    checkpoint = Checkpoint(MODEL)
    counts = count(checkpoint, prunable_weights(MODEL))
    k = round(params.prune.sparsity * counts.prunable)
    recipe = prune_by_magnitude(MODEL, checkpoint, k)
    with new_folder(OUT) as folder:
        write_recipe(recipe, folder)
    write_json(
        METRICS,
        {
            "total_parameters": counts.total,
            "prunable_weights": counts.prunable,
            "zeros_before": counts.zeros,
            "pruned_weights": recipe.pruned,
            "effective_parameters": counts.effective(recipe.pruned),
            "sparsity": significant(recipe.pruned / counts.prunable),
        },
    )


if __name__ == "__main__":
    command.run("prune", main, argparse.ArgumentParser(prog="python -m stages.prune", description=__doc__))
