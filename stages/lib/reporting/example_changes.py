"""The reviews and summaries that changed between the original and the pruned model."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

SHOWN_CHARACTERS = 600
"""Of a text; the rest is cut off and replaced by …"""


@dataclass(frozen=True)
class FlippedReview:
    """A review that the two models classify differently."""

    text: str
    label: str
    original: str
    pruned: str

    @property
    def kind(self) -> str:
        """Whether pruning lost the review, won it, or replaced one mistake by another."""
        if self.original == self.label:
            return "lost"
        return "won" if self.pruned == self.label else "other"


@dataclass(frozen=True)
class SummaryPair:
    """A document and both models' summaries, with their ROUGE-L."""

    text: str
    reference: str
    original: str
    pruned: str
    original_rouge: float
    pruned_rouge: float

    @property
    def kind(self) -> str:
        """Whether the pruned model's summary is worse, better or as good by ROUGE-L."""
        change = self.pruned_rouge - self.original_rouge
        return "worse" if change < 0 else "better" if change > 0 else "same"


def flipped_reviews(
    reviews: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame, classes: Sequence[str]
) -> list[FlippedReview]:
    """The reviews that the models classify differently, in the order in which they were scored."""
    texts = dict(zip(reviews["document"], reviews["text"], strict=True))
    flipped = _both(original, pruned)
    flipped = flipped[flipped["predicted_original"] != flipped["predicted_pruned"]]
    said = [flipped[column] for column in ("document", "label_original", "predicted_original", "predicted_pruned")]
    return [
        FlippedReview(_cut(texts[document]), *(classes[number] for number in numbers))
        for document, *numbers in zip(*said, strict=True)
    ]


def summary_pairs(documents: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame) -> list[SummaryPair]:
    """All documents with both summaries, those first that lost most ROUGE-L."""
    texts, references = (
        dict(zip(documents["document"], documents[column], strict=True)) for column in ("text", "summary")
    )
    both = _both(original, pruned)
    columns = ("document", "summary_original", "summary_pruned", "rougeL_original", "rougeL_pruned")
    pairs = [
        SummaryPair(_cut(texts[document]), references[document], *found)
        for document, *found in zip(*(both[column] for column in columns), strict=True)
    ]
    return sorted(pairs, key=lambda pair: pair.pruned_rouge - pair.original_rouge)


def _both(original: pd.DataFrame, pruned: pd.DataFrame) -> pd.DataFrame:
    return original.merge(pruned, on="document", suffixes=("_original", "_pruned"), validate="one_to_one")


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " …"
