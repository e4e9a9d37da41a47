"""The examples on the page: the tokens, reviews and summaries that pruning changed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.lib.figures.comparison import Tables
from stages.lib.figures.definitions import items
from stages.lib.files.places import DOCUMENTS, REVIEWS, TEXT
from stages.lib.files.rows import SEPARATOR, read_rows

SHOWN_CHARACTERS = 600
"""Of a review or a document; the rest is cut off and replaced by …"""
SHOWN_TOKENS = 50
BEFORE, AFTER = 80, 30
"""The characters shown around a token."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Examples:
    """What the pruned model does differently, item by item."""

    percentiles: Sequence[float]
    """Of the KL divergences of all scored tokens, at PERCENTILES."""
    tokens: pd.DataFrame
    reviews: pd.DataFrame
    summaries: pd.DataFrame


def read_examples(tables: Tables, classes: Sequence[str]) -> Examples:
    """The examples from two models' predictions and the data that they were made on."""
    original, pruned = tables["original"], tables["pruned"]
    text = SEPARATOR.join(read_rows(TEXT, "test")["text"])
    return Examples(
        percentiles=percentiles(pruned["perplexity"]),
        tokens=changed_tokens(text, original["perplexity"], pruned["perplexity"]),
        reviews=flipped_reviews(read_rows(REVIEWS, "test"), original["classify"], pruned["classify"], classes),
        summaries=summary_pairs(read_rows(DOCUMENTS), original["summarize"], pruned["summarize"]),
    )


def percentiles(pruned: pd.DataFrame) -> list[float]:
    """The KL divergences below which PERCENTILES of all tokens are."""
    return [float(pruned["kl"].quantile(percent / 100)) for percent in PERCENTILES]


def changed_tokens(text: str, original: pd.DataFrame, pruned: pd.DataFrame) -> pd.DataFrame:
    """The tokens with the largest KL divergence, largest first, from both models' tables of the same tokens.

    Columns: before, token and after (the token in its context), kl, original_top and pruned_top (the most likely
    tokens), original_p and pruned_p (how likely the token itself is), and kind: flipped or same top.
    """
    largest = pruned.assign(nll_original=original["nll"].to_numpy()).nlargest(SHOWN_TOKENS, "kl")
    written = text.encode()
    places = zip(largest["end"], largest["bytes"], strict=True)
    context = pd.DataFrame([in_context(written, *place) for place in places], columns=["before", "token", "after"])
    return context.assign(
        kl=largest["kl"].to_numpy(),
        original_top=largest["original_top"].to_numpy(),
        pruned_top=largest["top"].to_numpy(),
        original_p=np.exp(-largest["nll_original"].to_numpy()),
        pruned_p=np.exp(-largest["nll"].to_numpy()),
        kind=np.where(largest["same_top"] == 1, "same top", "flipped"),
    )


def in_context(text: bytes, end: int, length: int) -> tuple[str, str, str]:
    """A token's text with some characters before and after it; of a token that is part of a character, all of it."""
    start = end - max(length, 1)  # of several tokens that make up one character, only one has its bytes
    while start > 0 and _continues(text[start]):
        start -= 1
    while end < len(text) and _continues(text[end]):
        end += 1
    before = text[max(0, start - 4 * BEFORE) : start].decode(errors="ignore")  # a character has at most four bytes
    after = text[end : end + 4 * AFTER].decode(errors="ignore")
    return before[-BEFORE:], text[start:end].decode(), after[:AFTER]


def _continues(byte: int) -> bool:
    """Whether a byte continues a character of UTF-8."""
    return byte & 0b11000000 == 0b10000000


def flipped_reviews(
    reviews: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame, classes: Sequence[str]
) -> pd.DataFrame:
    """The reviews that the models classify differently, in the order in which they were scored.

    Columns: text, label, original and pruned (names of classes), and kind: whether pruning lost the review, gained it,
    or replaced one mistake by another.
    """
    both = _both(original, items("classify", pruned, original))
    both = both[both["flipped"] == 1]
    kinds = np.select([both["lost"] == 1, both["gained"] == 1], ["lost", "gained"], "other")
    columns = {"label": "label_original", "original": "predicted_original", "pruned": "predicted_pruned"}
    named = {key: [classes[number] for number in both[column]] for key, column in columns.items()}
    return pd.DataFrame({"text": _texts(reviews, both), **named, "kind": kinds})


def summary_pairs(documents: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame) -> pd.DataFrame:
    """All documents with both summaries, those first that lost most ROUGE-L.

    Columns: text, reference, original and pruned (summaries), original_rouge, pruned_rouge, and kind: whether the
    pruned model's summary is worse, better or the same by ROUGE-L.
    """
    both = _both(original, pruned)
    change = both["rougeL_pruned"] - both["rougeL_original"]
    pairs = pd.DataFrame(
        {
            "text": _texts(documents, both),
            "reference": documents.set_index("document")["summary"].loc[both["document"]].to_numpy(),
            "original": both["summary_original"],
            "pruned": both["summary_pruned"],
            "original_rouge": both["rougeL_original"],
            "pruned_rouge": both["rougeL_pruned"],
            "kind": np.select([change < 0, change > 0], ["worse", "better"], "same"),
        }
    )
    return pairs.loc[change.sort_values(kind="stable").index]


def _both(original: pd.DataFrame, pruned: pd.DataFrame) -> pd.DataFrame:
    return original.merge(pruned, on="document", suffixes=("_original", "_pruned"), validate="one_to_one")


def _texts(rows: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    """The texts of the chosen documents, cut to what is shown."""
    texts = rows.set_index("document")["text"].loc[chosen["document"]]
    return [text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " …" for text in texts]
