"""Compute a model's figures by each task of lm-evaluation-harness, and its flips, without running it."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    command.check_model(arguments.item, ("original", "pruned"))
    from stages.lib.figures.harness import harness_figures
    from stages.lib.files.places import METRICS
    from stages.lib.files.writing import write_json

    figures = harness_figures(arguments.item, params.harness.tasks)
    write_json(METRICS / "harness" / f"{arguments.item}.json", figures)
    for task, found in figures.items():
        print(f"{arguments.item}, {task}:", ", ".join(f"{key} {value:g}" for key, value in found.items()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.measure_harness", description=__doc__)
    parser.add_argument("item", metavar="model", help="one of harness.models in params.yaml")
    command.run("measure-harness", main, parser)
