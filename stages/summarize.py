"""Summarize the documents with a model, and score each summary and the document's first sentence with ROUGE."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.evaluation.predict import predict

    predict(arguments.item, ["summarize"], params)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.summarize", description=__doc__)
    parser.add_argument("item", metavar="model", choices=["original", "pruned"], help="original or pruned")
    command.run("summarize", main, parser)
