"""Prune by a method to a sparsity, and score the text before and after recovery."""

import argparse

from stages.lib.plumbing import command
from stages.lib.plumbing.params import load_params


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.evaluation.frontier import point_name, score_point
    from stages.lib.evaluation.predictions import FRONTIER, write_predictions

    method, sparsity = arguments.item
    write_predictions(FRONTIER / f"{point_name(method, sparsity)}.parquet", score_point(method, sparsity, params))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.frontier", description=__doc__)
    parser.add_argument("item", metavar=("method", "sparsity"), nargs=2, help="for instance wanda 0.3")
    command.run("frontier", main, parser)
