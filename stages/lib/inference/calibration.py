"""Text for calibration and training, as tokens."""

from collections.abc import Iterable, Sequence

import torch

from stages.lib.files.errors import UserError
from stages.lib.inference.likelihood import SEPARATOR
from stages.lib.inference.loading import Loaded

WINDOW = 1024
"""Tokens in a window of calibration text, or the model's context length if that is less."""


def first_tokens(loaded: Loaded, documents: Iterable[str], tokens: int) -> list[int]:
    """The first `tokens` tokens of the documents, or all of them if there are fewer."""
    ids: list[int] = []
    for document in documents:  # one by one: of a large corpus only a little is needed
        if len(ids) >= tokens:
            break
        ids += loaded.tokenizer(document + SEPARATOR, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[:tokens]


def calibration_windows(loaded: Loaded, documents: Sequence[str], tokens: int, setting: str) -> list[torch.Tensor]:
    """The first `tokens` of the documents, in windows of shape (1, length); the last may be shorter.

    Raises UserError if the documents have fewer; it names the `setting` that requires them.
    """
    ids = first_tokens(loaded, documents, tokens)
    if len(ids) < tokens:
        raise UserError(
            f"the calibration text has {len(ids)} tokens, {setting} is {tokens}; lower it in "
            "params.yaml, or leave more of the text for training (test_share, or files under train)"
        )
    text = torch.tensor([ids], device=loaded.device)
    return list(torch.split(text, min(WINDOW, loaded.context_length), dim=1))
