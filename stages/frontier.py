"""Prune by a method to a sparsity, and score the text before and after recovery."""

import argparse

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.pruning.methods import METHODS

    methods = [method.name for method in METHODS]
    if arguments.method not in methods:
        raise ParamsError(f"method: got {arguments.method!r}, takes {', '.join(methods)}")
    try:
        inside = 0 <= float(arguments.sparsity) < 1
    except ValueError:
        inside = False
    if not inside:
        raise ParamsError(f"sparsity: got {arguments.sparsity!r}, takes a number from 0 to below 1")
    from stages.lib.evaluation.frontier import score_point

    score_point(arguments.method, arguments.sparsity, params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.frontier", description=__doc__)
    parser.add_argument("method", help="one of frontier.methods in params.yaml")
    parser.add_argument("sparsity", help="one of frontier.sparsities in params.yaml")
    command.run("frontier", main, parser)
