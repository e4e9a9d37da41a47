"""Measure a model's summaries with ROUGE, next to each document's first sentence."""

import argparse
from pathlib import Path

from stages.lib import command
from stages.lib.params import load_params

MODEL = Path("data/model")
DOCUMENTS = Path("data/documents")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    import pandas as pd

    from stages.lib.artifacts import significant, write_json
    from stages.lib.compute import set_up
    from stages.lib.corpora.rows import read_rows
    from stages.lib.corpora.sampling import draw
    from stages.lib.metrics.rouge import KINDS, Rouge
    from stages.lib.models import load
    from stages.lib.predictions import write_predictions
    from stages.lib.summarization import lead_sentence, summarize

    settings = params.summarize
    documents = draw(read_rows(DOCUMENTS), settings.examples, params.seed, "summarize.examples", settings.order)
    loaded = load(MODEL, Path("data") / arguments.item, set_up(params.compute, params.seed))
    references = documents["summary"].tolist()
    summaries = summarize(loaded, documents["text"].tolist(), settings)
    rouge = Rouge(keep_in_memory=True)
    scores = rouge.compute(predictions=summaries, references=references)
    lead = rouge.compute(predictions=[lead_sentence(text) for text in documents["text"]], references=references)
    table = pd.DataFrame(
        {
            "document": documents["document"],
            "summary": summaries,
            **{kind: scores[kind] for kind in KINDS},
            **{f"lead_{kind}": lead[kind] for kind in KINDS},
        }
    )
    write_predictions(Path(f"data/predictions/summarize/{arguments.item}.parquet"), table)
    figures = {kind: significant(table[kind].mean()) for kind in [*KINDS, "lead_rougeL"]}
    write_json(Path(f"metrics/summarize/{arguments.item}.json"), {**figures, "examples": len(table)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.summarize", description=__doc__)
    parser.add_argument("item", metavar="model", help="the folder in data/ with the model's recipe: original or pruned")
    command.run("summarize", main, parser)
