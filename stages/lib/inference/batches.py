"""Batches of token sequences: grouped by length, padded on either side."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

TokenIds: TypeAlias = Sequence[int] | npt.NDArray[np.int64]


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of similar length, the longest first: little padding, and the memory peak comes first."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def pad(
    sequences: Sequence[TokenIds], pad_token: int, side: Literal["left", "right"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, both of shape (sequences, longest)."""
    longest = max(map(len, sequences))
    ids = torch.full((len(sequences), longest), pad_token)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        place = slice(longest - len(sequence), longest) if side == "left" else slice(len(sequence))
        ids[row, place] = torch.as_tensor(sequence)
        mask[row, place] = 1
    return ids, mask


def positions(mask: torch.Tensor) -> torch.Tensor:
    """Position ids that count only real tokens, whichever side is padded."""
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def last_real(mask: torch.Tensor) -> torch.Tensor:
    """The index of each row's last real token, whichever side is padded. Shape: (rows,)."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
