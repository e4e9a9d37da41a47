"""Measure the perplexity of the original model."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.params import Params, load_params

if TYPE_CHECKING:
    from pandas import DataFrame

    from stages.lib.models import Loaded

MODEL = Path("data/model")
TEXT = Path("data/text")
RECIPE = Path("data/original")
SCORES = Path("data/predictions/baseline_ppl.parquet")
METRICS = Path("metrics/baseline_ppl.json")


def predict(loaded: "Loaded", params: Params) -> "DataFrame":
    """Score the text; the sums of each document in each window."""
    from stages.lib.corpora.rows import read_rows
    from stages.lib.perplexity import score

    return score(loaded, read_rows(TEXT, "test")["text"].tolist(), params.perplexity)


def measure(recipe: Path, scores: Path, metrics: Path) -> None:
    """Score the text with the recipe's model; write each document's sums, and the figures."""
    params = load_params()
    from stages.lib.artifacts import write_json
    from stages.lib.compute import set_up
    from stages.lib.measures import figures
    from stages.lib.models import load
    from stages.lib.predictions import write_predictions

    table = predict(load(MODEL, recipe, set_up(params.compute, params.seed)), params)
    write_predictions(scores, table)
    write_json(metrics, figures("perplexity", table))


def main(arguments: argparse.Namespace) -> None:
    measure(RECIPE, SCORES, METRICS)


if __name__ == "__main__":
    command.run(
        "baseline-ppl", main, argparse.ArgumentParser(prog="python -m stages.baseline_ppl", description=__doc__)
    )
