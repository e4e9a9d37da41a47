"""Measure a model's summaries with ROUGE, next to each document's first sentence."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.plumbing.params import Params, load_params

if TYPE_CHECKING:
    from pandas import DataFrame

    from stages.lib.inference.loading import Loaded

MODEL = Path("data/model")
DOCUMENTS = Path("data/documents")


def predict(loaded: "Loaded", params: Params) -> "DataFrame":
    """Summarize the documents; each one's summary and ROUGE, and that of its first sentence."""
    import pandas as pd

    from stages.lib.corpora.rows import read_rows
    from stages.lib.corpora.sampling import draw
    from stages.lib.evaluation.rouge import KINDS, Rouge
    from stages.lib.evaluation.summarization import lead_sentence, summarize

    settings = params.summarize
    documents = draw(read_rows(DOCUMENTS), settings.examples, params.seed, "summarize.examples", settings.order)
    references = documents["summary"].tolist()
    summaries = summarize(loaded, documents["text"].tolist(), settings)
    rouge = Rouge(keep_in_memory=True)
    scores = rouge.compute(predictions=summaries, references=references)
    lead = rouge.compute(predictions=[lead_sentence(text) for text in documents["text"]], references=references)
    return pd.DataFrame(
        {
            "document": documents["document"],
            "summary": summaries,
            **{kind: scores[kind] for kind in KINDS},
            **{f"lead_{kind}": lead[kind] for kind in KINDS},
        }
    )


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.files.writing import write_json
    from stages.lib.inference.device import set_up
    from stages.lib.figures.measures import figures
    from stages.lib.inference.loading import load
    from stages.lib.evaluation.predictions import predictions_path, write_predictions
    from stages.lib.recipes.recipe import recipe_folder

    table = predict(load(MODEL, recipe_folder(arguments.item), set_up(params.compute, params.seed)), params)
    write_predictions(predictions_path(arguments.item, "summarize"), table)
    write_json(Path(f"metrics/summarize/{arguments.item}.json"), figures("summarize", table))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.summarize", description=__doc__)
    parser.add_argument("item", metavar="model", help="original or pruned")
    command.run("summarize", main, parser)
