"""Measure the perplexity of the original model."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.lib.params import load_params

MODEL = Path("data/model")
TEXT = Path("data/text")
RECIPE = Path("data/original")
SCORES = Path("data/predictions/baseline_ppl.parquet")
METRICS = Path("metrics/baseline_ppl.json")


def measure(recipe: Path, scores: Path, metrics: Path) -> None:
    """Score the text with the recipe's model; write each document's sums, and the figures."""
    params = load_params()
    from stages.lib.compute import set_up
    from stages.lib.corpora.rows import read_rows
    from stages.lib.models import load
    from stages.lib.perplexity import score

    loaded = load(MODEL, recipe, set_up(params.compute, params.seed))
    documents = read_rows(TEXT, "test")["text"].tolist()
    score(loaded, documents, params.perplexity).save(scores, metrics)


def main(arguments: argparse.Namespace) -> None:
    measure(RECIPE, SCORES, METRICS)


if __name__ == "__main__":
    command.run(
        "baseline-ppl", main, argparse.ArgumentParser(prog="python -m stages.baseline_ppl", description=__doc__)
    )
