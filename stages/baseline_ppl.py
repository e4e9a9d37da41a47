"""Score the text with the original model, and count its parameters."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.evaluation.predict import predict

    predict("original", ["size", "perplexity"], params)


if __name__ == "__main__":
    command.run(
        "baseline-ppl", main, argparse.ArgumentParser(prog="python -m stages.baseline_ppl", description=__doc__)
    )
