"""A linear head on the hidden state of the last real token, the body frozen."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from stages.lib.inference.batches import by_length, last_real, pad, positions
from stages.lib.inference.loading import Loaded

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]


def tokenize(loaded: Loaded, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Each text's tokens, truncated at its end to `max_tokens`, or to the model's context length."""
    limit = min(max_tokens, loaded.context_length)
    tokens: list[list[int]] = loaded.tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
    return tokens


def last_states(
    loaded: Loaded, batch: Sequence[Sequence[int]], side: Literal["left", "right"] = "right"
) -> torch.Tensor:
    """The body's hidden state at each sequence's last real token. Shape: (sequences, hidden)."""
    # A pad is never attended to and never read, so any token will do.
    ids, mask = (tensor.to(loaded.device) for tensor in pad(batch, 0, side))
    states: torch.Tensor = loaded.body(
        input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False
    ).last_hidden_state
    return states[torch.arange(len(ids), device=ids.device), last_real(mask)]


@torch.inference_mode()
def features(loaded: Loaded, tokens: Sequence[Sequence[int]], batch_size: int) -> Features:
    """The frozen body's features. Shape: (texts, hidden)."""
    found = np.empty((len(tokens), loaded.model.config.hidden_size), dtype=np.float32)
    with tqdm(total=len(tokens), unit="text", desc="features") as progress:
        for batch in by_length([len(sequence) for sequence in tokens], batch_size):
            found[batch] = last_states(loaded, [tokens[index] for index in batch]).float().cpu().numpy()
            progress.update(len(batch))
    return found


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
