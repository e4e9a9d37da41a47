"""Measure the perplexity of the pruned model on the same tokens as the original's, and that before recovery."""

import argparse
from pathlib import Path

from stages.baseline_ppl import measure
from stages.lib import command

PRUNED = Path("data/pruned")
METRICS = Path("metrics/post_ppl.json")


def main(arguments: argparse.Namespace) -> None:
    measure("pruned", METRICS, unrecovered=PRUNED)


if __name__ == "__main__":
    command.run("post-ppl", main, argparse.ArgumentParser(prog="python -m stages.post_ppl", description=__doc__))
