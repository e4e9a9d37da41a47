"""Train the pruned model for the steps of `recover` in params.yaml, or none; zeros in its matrices stay zero."""

import argparse

from stages.lib.plumbing import command
from stages.lib.recovery.recover import recover_model


def main(arguments: argparse.Namespace) -> None:
    recover_model("pruned", command.load_params())


if __name__ == "__main__":
    command.run("recover", main, argparse.ArgumentParser(prog="python -m stages.recover", description=__doc__))
