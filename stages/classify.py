"""Measure a model's accuracy on the reviews, with a head on a frozen or a fine-tuned body."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.files.errors import UserError
from stages.lib.plumbing.params import Params, load_params

if TYPE_CHECKING:
    from pandas import DataFrame

    from stages.lib.inference.loading import Loaded

MODEL = Path("data/model")
REVIEWS = Path("data/reviews")


def predict(loaded: "Loaded", params: Params) -> "DataFrame":
    """Fit on the training reviews, fine-tuning the model in mode `all`; predict each test review."""
    import numpy as np
    import pandas as pd

    from stages.lib.evaluation.classification import features, fit_head, tokenize
    from stages.lib.corpora.rows import read_rows
    from stages.lib.corpora.sampling import draw
    from stages.lib.evaluation.finetuning import fine_tune
    from stages.lib.metrics.accuracy import Accuracy

    settings, seed = params.classify, params.seed
    train = draw(read_rows(REVIEWS, "train"), settings.train_examples, seed, "classify.train_examples")
    test = draw(read_rows(REVIEWS, "test"), settings.test_examples, seed, "classify.test_examples")
    labels = train["label"].to_numpy()
    if len(set(labels)) < 2:
        raise UserError("the training reviews are all of one class; raise classify.train_examples in params.yaml")
    train_tokens = tokenize(loaded, train["text"].tolist(), settings.max_tokens)
    test_tokens = tokenize(loaded, test["text"].tolist(), settings.max_tokens)
    if settings.mode == "head":
        states = features(loaded, train_tokens + test_tokens, settings.batch_size)
        fitted, scored = np.split(states, [len(train)])
        probabilities = fit_head(fitted, labels, scored, settings.regularization, seed)
    else:
        classes = len(np.unique(labels))
        probabilities = fine_tune(loaded, train_tokens, labels, test_tokens, settings, classes, seed)
    predicted = probabilities.argmax(axis=1)
    scores = Accuracy(keep_in_memory=True).compute(predictions=predicted, references=test["label"])
    return pd.DataFrame(
        {
            "document": test["document"],
            "label": test["label"],
            "predicted": predicted,
            "right": scores["accuracy"],
            "probability": probabilities.max(axis=1).astype("float32"),
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

    device, tuned = set_up(params.compute, params.seed), params.classify.mode == "all"
    table = predict(load(MODEL, recipe_folder(arguments.item), device, keep_masks=tuned), params)
    write_predictions(predictions_path(arguments.item, "classify"), table)
    write_json(Path(f"metrics/classify/{arguments.item}.json"), figures("classify", table))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m stages.classify", description=__doc__)
    parser.add_argument("item", metavar="model", help="original or pruned")
    command.run("classify", main, parser)
