"""Predict the classes of the reviews with a model, by a head on a frozen or a fine-tuned body."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.evaluation.predict import predict

    predict(arguments.item, ["classify"], params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.classify", description=__doc__)
    parser.add_argument("item", metavar="model", choices=["original", "pruned"], help="original or pruned")
    command.run("classify", main, parser)
