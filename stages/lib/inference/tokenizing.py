"""Texts as tokens. Of the special tokens that a tokenizer adds, those before a text are kept.

Those after it, such as an end of text, are dropped: what follows is scored, read or continued as the text's own.
"""

from collections.abc import Sequence
from typing import Any


def tokenize_each(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Each text's first `limit` tokens."""
    encoded = tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
    pairs = zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
    return [ids[: min(limit, end_of_text(special))] for ids, special in pairs]


def end_of_text(special_tokens_mask: Sequence[int]) -> int:
    """How many tokens come before those that the tokenizer has appended, which its mask marks by 1."""
    return max((index + 1 for index, special in enumerate(special_tokens_mask) if not special), default=0)
