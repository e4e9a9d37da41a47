"""Measure the perplexity of the original model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.plumbing.params import Params, load_params

if TYPE_CHECKING:
    from pandas import DataFrame

    from stages.lib.inference.device import Device
    from stages.lib.inference.loading import Loaded

DATA = Path("data")
MODEL = DATA / "model"
TEXT = DATA / "text"
METRICS = Path("metrics/baseline_ppl.json")


def predict(loaded: "Loaded", params: Params) -> "DataFrame":
    """Score the text; the sums of each document in each window."""
    from stages.lib.corpora.rows import read_rows
    from stages.lib.inference.likelihood import score

    return score(loaded, read_rows(TEXT, "test")["text"].tolist(), params.perplexity)


def before_recovery(model: str, recipe: Path, device: "Device", params: Params) -> dict[str, float]:
    """The perplexity of the recipe that a model was recovered from; nothing where it was not recovered."""
    from stages.lib.figures.measures import BEFORE_RECOVERY, figures, intervals
    from stages.lib.inference.loading import load
    from stages.lib.recipes.recipe import Changed, read_recipe, recipe_folder

    measured = read_recipe(recipe_folder(model))
    if not (isinstance(measured, Changed) and measured.by == "recovery"):
        return {}
    table = predict(load(MODEL, recipe, device), params)
    found = figures("perplexity", table) | intervals("perplexity", table, params.statistics.resamples, params.seed)
    return {
        key.replace("perplexity", BEFORE_RECOVERY): value
        for key, value in found.items()
        if key.startswith("perplexity")
    }


def measure(model: str, metrics: Path, unrecovered: Path | None = None) -> None:
    """Score the text with the original or the pruned model; write each document's sums, and the figures."""
    params = load_params()
    from stages.lib.files.writing import write_json
    from stages.lib.inference.device import set_up
    from stages.lib.figures.measures import figures
    from stages.lib.inference.loading import load
    from stages.lib.evaluation.predictions import predictions_path, write_predictions
    from stages.lib.recipes.recipe import recipe_folder

    device = set_up(params.compute, params.seed)
    table = predict(load(MODEL, recipe_folder(model), device), params)
    before = before_recovery(model, unrecovered, device, params) if unrecovered else {}
    write_predictions(predictions_path(model, "perplexity"), table)
    write_json(metrics, figures("perplexity", table) | before)


def main(arguments: argparse.Namespace) -> None:
    measure("original", METRICS)


if __name__ == "__main__":
    command.run(
        "baseline-ppl", main, argparse.ArgumentParser(prog="python -m stages.baseline_ppl", description=__doc__)
    )
