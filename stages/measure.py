"""Compute a model's figures and intervals from its predictions, without running it."""

import argparse

from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    command.check_model(arguments.item, ("original", "pruned"))
    from stages.lib.figures.definitions import figures_of, summary_line
    from stages.lib.files.parquet import read_table
    from stages.lib.files.places import MEASURES, metrics_path, predictions_path
    from stages.lib.files.writing import write_json

    model = arguments.item
    original = read_table(predictions_path("classify", "original")) if model != "original" else None
    figures: dict[str, float] = {}
    for measure in MEASURES:
        table = read_table(predictions_path(measure, model))
        found = figures_of(
            measure, table, params.statistics.resamples, params.seed, original if measure == "classify" else None
        )
        write_json(metrics_path(measure, model), found)
        figures |= found
    print(summary_line(model, figures))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.measure", description=__doc__)
    parser.add_argument("item", metavar="model", help="original, pruned or one of compare.variants in params.yaml")
    command.run("measure", main, parser)
