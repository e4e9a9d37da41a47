"""The reviews and summaries that changed between the original and the pruned model."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

SHOWN_CHARACTERS = 600
"""Of a text; the rest is cut off and replaced by …"""


def flipped_reviews(
    reviews: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame, classes: Sequence[str]
) -> pd.DataFrame:
    """The reviews that the models classify differently, in the order in which they were scored.

    Columns: text, label, original and pruned (names of classes), and kind: whether pruning lost the review, won it, or
    replaced one mistake by another.
    """
    both = _both(original, pruned)
    both = both[both["predicted_original"] != both["predicted_pruned"]]
    label, before, after = both["label_original"], both["predicted_original"], both["predicted_pruned"]
    kinds = np.select([before == label, after == label], ["lost", "won"], "other")
    named = {
        key: [classes[number] for number in found]
        for key, found in zip(("label", "original", "pruned"), (label, before, after), strict=True)
    }
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
