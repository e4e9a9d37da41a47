"""Predicts the classes of reviews, by a linear head on a frozen body, or on a fine-tuned one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stages.lib.evaluation.finetuning import Labels, Probabilities, fine_tune
from stages.lib.files.errors import UserError
from stages.lib.files.sampling import draw
from stages.lib.inference.batches import Features, features
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import tokenize_each

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Classify


def predict_classes(
    loaded: Loaded, train: pd.DataFrame, test: pd.DataFrame, settings: "Classify", seed: int
) -> pd.DataFrame:
    """Fit on the training reviews, fine-tuning the model in mode `all`; predict the class of each test review.

    Columns: document, label, predicted, right (1 or 0), probability (of the predicted class). Raises UserError if
    there are too few reviews, or training reviews of only one class.
    """
    train = draw(train, settings.train_examples, seed, "classify.train_examples")
    test = draw(test, settings.test_examples, seed, "classify.test_examples")
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
    return pd.DataFrame(
        {
            "document": test["document"],
            "label": test["label"],
            "predicted": predicted,
            "right": (predicted == test["label"].to_numpy()).astype("float64"),
            "probability": probabilities.max(axis=1).astype("float32"),
        }
    )


def tokenize(loaded: Loaded, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Each text's tokens, truncated at its end to `max_tokens`, or to the model's context length."""
    return tokenize_each(loaded.tokenizer, texts, min(max_tokens, loaded.context_length))


def fit_head(train: Features, labels: Labels, test: Features, regularization: float, seed: int) -> Probabilities:
    """Fit a logistic regression on standardized features; each test row's class probabilities."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=regularization, max_iter=1000, random_state=seed)).fit(
        train, labels
    )
    probabilities: Probabilities = head.predict_proba(test)
    return probabilities
