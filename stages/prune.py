"""Choose exactly k of the prunable weights, and write the recipe."""

import argparse

from stages.lib.files.places import MODEL, written_recipe
from stages.lib.files.writing import new_folder
from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.pruning.prune import prune
    from stages.lib.weights.checkpoint import Checkpoint

    with new_folder(written_recipe("pruned")) as folder:
        prune(Checkpoint(MODEL), params, folder)


if __name__ == "__main__":
    command.run("prune", main, argparse.ArgumentParser(prog="python -m stages.prune", description=__doc__))
