"""Run one of the study's other models on everything that the original is run on."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    command.check_model(arguments.item)
    from stages.lib.evaluation.predict import predict
    from stages.lib.files.places import MEASURES

    predict(arguments.item, MEASURES, params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.compare", description=__doc__)
    parser.add_argument("item", metavar="variant", help="one of compare.variants in params.yaml")
    command.run("compare", main, parser)
