"""Measure one of the study's other models: perplexity, summaries and classification, as the original."""

import argparse
from pathlib import Path

from stages import baseline_ppl, classify, summarize
from stages.lib import command
from stages.lib.params import load_params

MODEL = Path("data/model")
VARIANTS = Path("data/variants")
PREDICTIONS = Path("data/predictions/compare")
METRICS = Path("metrics/compare")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.artifacts import new_folder, write_json
    from stages.lib.compute import set_up
    from stages.lib.materialize import materialize
    from stages.lib.measures import figures
    from stages.lib.models import ready
    from stages.lib.predictions import write_predictions

    made = materialize(MODEL, VARIANTS / arguments.item)
    counts = {
        "total_parameters": made.total_parameters(),
        "effective_parameters": made.effective_parameters(),
    }
    loaded = ready(made, set_up(params.compute, params.seed), keep_masks=params.classify.mode == "all")
    draws = params.statistics.resamples, params.seed
    perplexity = baseline_ppl.predict(loaded, params)
    summaries = summarize.predict(loaded, params)
    reviews = classify.predict(loaded, params)  # the last one, since it may fine-tune the model
    with new_folder(PREDICTIONS / arguments.item) as folder:
        write_predictions(folder / "perplexity.parquet", perplexity)
        write_predictions(folder / "classify.parquet", reviews)
        write_predictions(folder / "summarize.parquet", summaries)
    rouge = figures("summarize", summaries, *draws)
    write_json(
        METRICS / f"{arguments.item}.json",
        {
            **counts,
            **figures("perplexity", perplexity, *draws),
            **figures("classify", reviews, *draws),
            **{key: value for key, value in rouge.items() if key != "examples"},
            "documents": rouge["examples"],
        },
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.compare", description=__doc__)
    parser.add_argument("item", metavar="variant", help="one of compare.variants in params.yaml")
    command.run("compare", main, parser)
