"""Predicts the classes of reviews, by a linear head on a frozen body, or on a fine-tuned one."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stages.lib.evaluation.finetuning import Labels, Probabilities, fine_tune
from stages.lib.files.errors import UserError
from stages.lib.files.sampling import draw
from stages.lib.inference.batches import Features, features
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import room_for_text, tokenize_each

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Classify

ITERATIONS = 1000
"""The most that the logistic regression takes to converge."""


def predict_classes(
    loaded: Loaded, train: pd.DataFrame, test: pd.DataFrame, settings: "Classify", seed: int
) -> pd.DataFrame:
    """Fit on the training reviews, fine-tuning the model in mode `all`; predict the class of each test review.

    The classes are those that any review has, drawn or not. Columns: document, label, predicted, right (1 or 0),
    probability (of the predicted class). Raises UserError if there are too few reviews, a class has none among those
    drawn for training, a review has no tokens, or the head cannot be fitted.
    """
    classes = np.union1d(train["label"], test["label"]).astype("int64")
    train = draw(train, settings.train_examples, seed, "classify.train_examples")
    test = draw(test, settings.test_examples, seed, "classify.test_examples")
    labels = np.searchsorted(classes, train["label"].to_numpy("int64"))
    _check_classes(classes, np.bincount(labels, minlength=len(classes)))
    train_tokens, test_tokens = (_tokens(loaded, rows, settings.max_tokens) for rows in (train, test))
    if settings.mode == "head":
        states = features(loaded, train_tokens + test_tokens, settings.batch_size)
        fitted, scored = np.split(states, [len(train)])
        probabilities = fit_head(fitted, labels, scored, settings.regularization, seed)
    else:
        probabilities = fine_tune(loaded, train_tokens, labels, test_tokens, settings, len(classes), seed)
    predicted = classes[probabilities.argmax(axis=1)]
    return pd.DataFrame(
        {
            "document": test["document"],
            "label": test["label"].astype("int64"),
            "predicted": predicted,
            "right": (predicted == test["label"].to_numpy("int64")).astype("float64"),
            "probability": probabilities.max(axis=1).astype("float32"),
        }
    )


def _check_classes(classes: Labels, counts: Labels) -> None:
    if not counts.all():
        each = ", ".join(f"{count} of class {name}" for name, count in zip(classes, counts, strict=True))
        raise UserError(
            f"the training reviews that were drawn lack a class ({each}); "
            "raise classify.train_examples, or correct reviews.classes in params.yaml"
        )


def _tokens(loaded: Loaded, reviews: pd.DataFrame, max_tokens: int) -> list[list[int]]:
    tokens = tokenize(loaded, reviews["text"].tolist(), max_tokens)
    for document, found in zip(reviews["document"], tokens, strict=True):
        if not found:
            raise UserError(f"review {document} has no tokens, so no state to read; remove it from the reviews")
    return tokens


def tokenize(loaded: Loaded, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Each text's tokens, truncated at its end to `max_tokens`, or to the model's context length.

    Raises UserError if that leaves no room behind the special tokens that the tokenizer puts before a text.
    """
    limit = min(max_tokens, loaded.context_length)
    room_for_text(limit, len(loaded.first_tokens), "classify.max_tokens")
    return tokenize_each(loaded.tokenizer, texts, limit)


def fit_head(train: Features, labels: Labels, test: Features, regularization: float, seed: int) -> Probabilities:
    """Fit a logistic regression on standardized features; each test row's class probabilities.

    Raises UserError if it does not converge.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    head = make_pipeline(StandardScaler(), LogisticRegression(C=regularization, max_iter=ITERATIONS, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            head.fit(train, labels)
        except ConvergenceWarning:
            raise UserError(
                f"the logistic regression did not converge in {ITERATIONS} iterations; "
                "lower classify.regularization in params.yaml"
            ) from None
    probabilities: Probabilities = head.predict_proba(test)
    return probabilities
