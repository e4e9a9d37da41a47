"""Measure the perplexity of the original model."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.lib.params import load_params

MODEL = Path("data/model")
RECIPE = Path("data/original")
TEXT = Path("data/text")
SCORES = Path("data/predictions/baseline_ppl.parquet")
METRICS = Path("metrics/baseline_ppl.json")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.compute import set_up
    from stages.lib.corpora.rows import read_rows
    from stages.lib.models import load
    from stages.lib.perplexity import score

    device = set_up(params.compute, params.seed)
    documents = read_rows(TEXT, "test")["text"].tolist()
    scores = score(load(MODEL, RECIPE, device), documents, params.perplexity)
    scores.save(SCORES, METRICS)


if __name__ == "__main__":
    command.run(
        "baseline-ppl", main, argparse.ArgumentParser(prog="python -m stages.baseline_ppl", description=__doc__)
    )
