"""Scores a text: the likelihood of each token, and how far each prediction is from the original's."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from stages.lib.inference.final_states import OriginalStates, new_final_states, vocabulary
from stages.lib.inference.likelihood import Columns, TokenizedText, predictions, scored_windows, tokenize

if TYPE_CHECKING:
    from stages.lib.inference.loading import Loaded
    from stages.lib.plumbing.params import Perplexity

BEFORE_RECOVERY = "nll_before_recovery"
"""The column of a recovered model's scores before recovery."""


def score(loaded: "Loaded", documents: Sequence[str], settings: "Perplexity") -> pd.DataFrame:
    """Score documents, joined to one text, as `score_text` does."""
    return score_text(loaded, tokenize(loaded.tokenizer, documents), settings)


def score_original(loaded: "Loaded", text: TokenizedText, settings: "Perplexity", states: Path) -> pd.DataFrame:
    """Score a text with the original as `score_text` does, and write its final hidden states into a folder."""
    found: dict[int, Columns] = {}
    with new_final_states(states) as keep:
        for scored in scored_windows(loaded, text, settings):
            keep(scored.sequence, scored.states, scored.tokens)
            found[scored.sequence] = predictions(loaded, scored)
    return _table(text, settings, found)


def score_text(
    loaded: "Loaded", text: TokenizedText, settings: "Perplexity", original: OriginalStates | None = None
) -> pd.DataFrame:
    """Score a text: one row per scored token.

    Columns: document and window (their numbers, from 0), end (of the token, in UTF-8 bytes of the text), bytes, nll
    (negative log-likelihood, in nats). With the states of the original, unless that reads the text as other tokens,
    also kl (KL(original ‖ model) over the whole vocabulary, in nats), same_top (1 or 0: whether the most likely token
    is the same), top and original_top (the most likely tokens, as text). Raises as `scored_windows` and `predictions`.
    """
    if original is not None and not _reads_alike(original, loaded, text, settings):
        original = None
    windows = scored_windows(loaded, text, settings)
    table = _table(text, settings, {each.sequence: predictions(loaded, each, original) for each in windows})
    if original is not None:
        table["same_top"] = (table["top"] == table["original_top"]).astype(np.float64)
        for column in ("top", "original_top"):
            words = {token: loaded.tokenizer.decode([token]) for token in table[column].unique().tolist()}
            table[column] = table[column].map(words)
    return table


def _reads_alike(original: OriginalStates, loaded: "Loaded", text: TokenizedText, settings: "Perplexity") -> bool:
    """Whether the original reads a text as the same tokens of the same vocabulary."""
    return vocabulary(loaded) == vocabulary(original.head) and all(
        torch.equal(original.tokens(number), torch.from_numpy(text.tokens[window.scored : window.end]))
        for number, window in enumerate(text.windows(settings))
    )


def _table(text: TokenizedText, settings: "Perplexity", found: dict[int, Columns]) -> pd.DataFrame:
    """The predictions of all windows as one table, in the text's order."""
    ends = np.cumsum(text.byte_counts)
    tables = []
    for number, window in enumerate(text.windows(settings)):
        scored = slice(window.scored, window.end)
        tokens = {"document": text.document[scored], "window": number}
        tables.append(pd.DataFrame({**tokens, "end": ends[scored], "bytes": text.byte_counts[scored], **found[number]}))
    return pd.concat(tables, ignore_index=True)
