"""Text for calibration and training, as tokens; torch is imported only when tokens are needed."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError
from stages.lib.files.places import TEXT
from stages.lib.files.rows import SEPARATOR, unscored_documents
from stages.lib.inference.tokenizing import room_for_text
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

    from stages.lib.inference.loading import Loaded
    from stages.lib.plumbing.params import Params

WINDOW = 1024
"""Tokens in a window of calibration text, special ones included, or the model's context length if that is less."""


class Calibration:
    """The unpruned model, and windows of text that is not scored; both are loaded when first used."""

    def __init__(self, checkpoint: Checkpoint, params: "Params", tokens: int, setting: str) -> None:
        self._checkpoint = checkpoint
        self._params = params
        self._tokens = tokens
        self._setting = setting

    @cached_property
    def loaded(self) -> "Loaded":
        from stages.lib.inference.device import set_up
        from stages.lib.inference.loading import load_original

        return load_original(self._checkpoint, set_up(self._params.compute, self._params.seed))

    @cached_property
    def windows(self) -> "list[torch.Tensor]":
        """Raises as `unscored_documents` and `calibration_windows` do."""
        return calibration_windows(self.loaded, unscored_documents(TEXT), self._tokens, self._setting)


def beginning_of(loaded: "Loaded", documents: Iterable[str], tokens: int) -> list[int]:
    """The first `tokens` tokens of the documents, or all of them if there are fewer; no special tokens among them."""
    ids: list[int] = []
    for document in documents:  # one at a time: only the beginning of a large corpus is needed
        if len(ids) >= tokens:
            break
        ids += loaded.tokenizer(document + SEPARATOR, add_special_tokens=False, verbose=False)["input_ids"]
    return ids[:tokens]


def calibration_windows(loaded: "Loaded", documents: Sequence[str], tokens: int, setting: str) -> "list[torch.Tensor]":
    """The first `tokens` of the documents in windows of shape (1, length). Raises UserError if there are fewer.

    Each window begins with the special tokens that the tokenizer puts before a text; `tokens` does not count them.
    """
    import torch

    ids = beginning_of(loaded, documents, tokens)
    if len(ids) < tokens:
        raise UserError(
            f"the calibration text has {len(ids)} tokens, {setting} is {tokens}; lower it in "
            "params.yaml, or leave more of the text for training (test_share, or files under train)"
        )
    text = torch.tensor([ids], device=loaded.device)
    first = torch.tensor([loaded.first_tokens], dtype=text.dtype, device=loaded.device)
    room = room_for_text(min(WINDOW, loaded.context_length), first.shape[1], "the model's context")
    parts = torch.split(text, room, dim=1)
    return [torch.cat([first, part], dim=1) for part in parts]
