"""Print what can be pruned in a model, and what is left out and why, from its config.json alone."""

import argparse
from pathlib import Path

from stages.lib.files.places import MODEL
from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    from stages.lib.reporting.describing import described
    from stages.lib.weights.config import read_config
    from stages.lib.weights.module_tree import structure_of

    folder = Path(arguments.folder)
    print(described(structure_of(read_config(folder), folder), folder))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.describe", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", default=str(MODEL), help=f"a folder with a config.json; {MODEL} if none is given"
    )
    command.run("describe", main, parser)
