"""Train one of the study's other models for as many steps as the pruned one."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.recover import recover_model

VARIANTS = Path("data/variants")


def main(arguments: argparse.Namespace) -> None:
    recover_model(arguments.item, VARIANTS / arguments.item)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.recover_others", description=__doc__)
    parser.add_argument("item", metavar="variant", help="one of compare.variants in params.yaml")
    command.run("recover-others", main, parser)
