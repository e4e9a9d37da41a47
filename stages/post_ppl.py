"""Measure the perplexity of the pruned model, on the same tokens as the original's."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.lib.params import load_params

MODEL = Path("data/model")
RECIPE = Path("data/pruned")
TEXT = Path("data/text")
SCORES = Path("data/predictions/post_ppl.parquet")
METRICS = Path("metrics/post_ppl.json")


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
    command.run("post-ppl", main, argparse.ArgumentParser(prog="python -m stages.post_ppl", description=__doc__))
