"""Measure a method at a sparsity: effective parameters, bytes and perplexity, before and after recovery."""

import argparse
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.lib import command
from stages.lib.files.writing import write_json
from stages.lib.plumbing.params import Params, load_params
from stages.prune import choose
from stages.recover import train

if TYPE_CHECKING:
    from stages.lib.weights.checkpoint import Checkpoint

DATA = Path("data")
MODEL = DATA / "model"
METRICS = Path("metrics/frontier")


def at_point(params: Params, method: str, sparsity: float) -> Params:
    """The settings with another method and sparsity, and with the frontier's steps of recovery."""
    prune = {"method": method, "scope": "auto", "budget": "uniform", "sparsity": sparsity}
    return params.model_copy(
        update={
            "prune": params.prune.model_copy(update=prune),
            "recover": params.recover.model_copy(update={"steps": params.frontier.steps}),
        }
    )


def measure(checkpoint: "Checkpoint", folder: Path, params: Params) -> dict[str, Any]:
    """What a recipe counts and takes, and its perplexity with its interval."""
    from stages.baseline_ppl import predict
    from stages.lib.files.writing import folder_bytes
    from stages.lib.inference.device import set_up
    from stages.lib.recipes.materialize import materialize
    from stages.lib.figures.measures import figures, intervals
    from stages.lib.inference.loading import ready

    made = materialize(checkpoint, folder)
    counted = {"effective_parameters": made.effective_parameters(), "stored_bytes": folder_bytes(folder)}
    table = predict(ready(made, set_up(params.compute, params.seed)), params)
    measured = figures("perplexity", table)
    return counted | measured | intervals("perplexity", table, params.statistics.resamples, params.seed)


@contextmanager
def working_folder(folder: Path) -> Iterator[Path]:
    """Make an empty folder that is removed afterwards, or by the next run if this one is killed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def main(arguments: argparse.Namespace) -> None:
    method, _, sparsity = arguments.item.partition("-")
    params = at_point(load_params(), method, float(sparsity))
    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.weights.families import prunable_weights
    from stages.lib.recipes.recipe import write_recipe

    checkpoint = Checkpoint(MODEL)
    k = params.prune.pruned_of(sum(checkpoint.size(name) for name in prunable_weights(MODEL)))
    rows = {}
    with working_folder(DATA / f".frontier-{arguments.item}.part") as folder:
        started = time.monotonic()
        write_recipe(choose(checkpoint, k, params, folder), folder)
        seconds = time.monotonic() - started
        rows["pruned"] = measure(checkpoint, folder, params) | {"seconds": round(seconds)}
        if params.recover.steps:
            started = time.monotonic()
            train(f"frontier-{arguments.item}", params, folder)
            seconds += time.monotonic() - started
            rows["recovered"] = measure(checkpoint, folder, params) | {"seconds": round(seconds)}
    write_json(METRICS / f"{arguments.item}.json", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.frontier", description=__doc__)
    parser.add_argument("item", metavar="method-sparsity", help="for instance wanda-0.3")
    command.run("frontier", main, parser)
