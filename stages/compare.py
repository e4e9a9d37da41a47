"""Measure one of the study's other models: perplexity, summaries and classification, as the original."""

import argparse
from pathlib import Path

from stages import baseline_ppl, classify, summarize
from stages.lib import command
from stages.lib.plumbing.params import load_params

MODEL = Path("data/model")
VARIANTS = Path("data/variants")
PREDICTIONS = Path("data/predictions/compare")
METRICS = Path("metrics/compare")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from pandas import DataFrame

    from stages.lib.files.writing import new_folder, write_json
    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.inference.device import set_up
    from stages.lib.recipes.materialize import materialize
    from stages.lib.figures.measures import Kind, figures, intervals
    from stages.lib.inference.loading import ready
    from stages.lib.evaluation.predictions import write_predictions
    from stages.lib.recipes.recipe import recipe_folder

    model, device = arguments.item, set_up(params.compute, params.seed)
    before = baseline_ppl.before_recovery(model, VARIANTS / model, device, params)
    made = materialize(Checkpoint(MODEL), recipe_folder(model))
    counts = made.counts()  # before fine-tuning, which may change the weights
    loaded = ready(made, device, keep_masks=params.classify.mode == "all")
    tables: dict[Kind, DataFrame] = {
        "perplexity": baseline_ppl.predict(loaded, params),
        "summarize": summarize.predict(loaded, params),
        "classify": classify.predict(loaded, params),  # the last one, since it may fine-tune the model
    }
    measured: dict[str, float] = {}
    with new_folder(PREDICTIONS / model) as folder:
        for kind, table in tables.items():
            write_predictions(folder / f"{kind}.parquet", table)
            found = figures(kind, table)
            if kind == "summarize":
                found["documents"] = int(found.pop("examples"))  # the reviews are the examples
            measured |= found | intervals(kind, table, params.statistics.resamples, params.seed)
    write_json(METRICS / f"{model}.json", {**counts, **measured, **before})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.compare", description=__doc__)
    parser.add_argument("item", metavar="variant", help="one of compare.variants in params.yaml")
    command.run("compare", main, parser)
