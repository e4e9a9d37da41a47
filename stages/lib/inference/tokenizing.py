"""Texts as tokens, and the special tokens that a tokenizer adds to them.

Those before a text, such as a beginning of sequence, come first in whatever a model reads: each review, document and
window. Those after it, such as an end of text, are dropped: what follows is scored, read or continued as the text's
own.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from stages.lib.files.errors import UserError

PROBE = "a"
"""A text whose tokens show which special tokens are put before it."""


def first_tokens(tokenizer: Any) -> list[int]:
    """The special tokens that the tokenizer puts before a text; most put one there or none."""
    encoded = tokenizer(PROBE, return_special_tokens_mask=True, verbose=False)
    pairs = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [token for token, _ in takewhile(lambda pair: pair[1], pairs)]


def room_for_text(window: int, first: int, setting: str) -> int:
    """How many of a window's tokens are the text's, behind `first` special tokens. Raises UserError if none are."""
    if window <= first:
        raise UserError(
            f"{setting} is {window}, and {first} of them are for the tokenizer's special tokens, so none is left for "
            "the text; raise it in params.yaml"
        )
    return window - first


def tokenize_each(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Each text's first `limit` tokens."""
    encoded = tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
    pairs = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [ids[: min(limit, _end_of_text(special))] for ids, special in pairs]


def _end_of_text(special_tokens_mask: Sequence[int]) -> int:
    """How many tokens come before those that the tokenizer has appended, which its mask marks by 1."""
    return max((index + 1 for index, special in enumerate(special_tokens_mask) if not special), default=0)
