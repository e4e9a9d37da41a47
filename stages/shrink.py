"""Write the recipe of each of the study's other models: those in compare.variants of params.yaml."""

import argparse

from stages.lib.files.places import VARIANTS
from stages.lib.files.writing import new_folder
from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.shrinking.shrink import write_variants

    with new_folder(VARIANTS) as folder:
        write_variants(params, folder)


if __name__ == "__main__":
    command.run("shrink", main, argparse.ArgumentParser(prog="python -m stages.shrink", description=__doc__))
