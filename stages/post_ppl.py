"""Score the same text with the pruned model, also before its recovery, and count its parameters."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.evaluation.predict import predict

    predict("pruned", ["size", "perplexity"], params)


if __name__ == "__main__":
    command.run("post-ppl", main, argparse.ArgumentParser(prog="python -m stages.post_ppl", description=__doc__))
