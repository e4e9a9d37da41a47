"""Score the text by sparsity, and with each kind of matrix and each block pruned alone."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.evaluation.sensitivity import score_sensitivity
    from stages.lib.files.parquet import write_table
    from stages.lib.files.places import SENSITIVITY

    write_table(score_sensitivity(params), SENSITIVITY)


if __name__ == "__main__":
    command.run("sensitivity", main, argparse.ArgumentParser(prog="python -m stages.sensitivity", description=__doc__))
