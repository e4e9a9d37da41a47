"""Train one of the study's other models for as many steps as the pruned one."""

import argparse

from stages.lib.plumbing import command
from stages.lib.recovery.recover import recover_model


def main(arguments: argparse.Namespace) -> None:
    command.check_model(arguments.item)
    recover_model(arguments.item, command.load_params())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.recover_others", description=__doc__)
    parser.add_argument("item", metavar="variant", help="one of compare.variants in params.yaml")
    command.run("recover-others", main, parser)
