"""Scores a text: the log-likelihood of each document's tokens in each window."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stages.lib.inference.likelihood import TokenizedText, negative_log_likelihoods, tokenize

if TYPE_CHECKING:
    from stages.lib.inference.loading import Loaded
    from stages.lib.plumbing.params import Perplexity

BEFORE_RECOVERY = "nll_before_recovery"
"""The column of a recovered model's scores before recovery."""


def score(loaded: "Loaded", documents: Sequence[str], settings: "Perplexity") -> pd.DataFrame:
    """Score documents, joined to one text: sums over each document's scored tokens in each window.

    Columns: document, window, tokens, bytes, nll (in nats). Raises as `negative_log_likelihoods` does.
    """
    return score_text(loaded, tokenize(loaded.tokenizer, documents), settings)


def score_text(loaded: "Loaded", text: TokenizedText, settings: "Perplexity") -> pd.DataFrame:
    """Score a text as `score` does its documents."""
    losses, scored = negative_log_likelihoods(loaded, text, settings)
    window = np.zeros(len(losses), dtype=np.int64)
    for number, part in enumerate(text.windows(settings)):
        window[part.scored : part.end] = number
    table = pd.DataFrame(
        {"document": text.document, "window": window, "tokens": 1, "bytes": text.byte_counts, "nll": losses}
    )
    return table[scored].groupby(["document", "window"], as_index=False).sum()
