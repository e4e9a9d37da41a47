"""Batches of token sequences: grouped by length, padded on either side."""

from collections.abc import Iterator, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import GenerationConfig

from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded

Features = npt.NDArray[np.float32]
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
    rows = [torch.as_tensor(sequence) for sequence in sequences]
    ids = pad_sequence(rows, batch_first=True, padding_value=pad_token, padding_side=side)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side)
    return ids, mask


def last_states(loaded: Loaded, batch: Sequence[TokenIds]) -> torch.Tensor:
    """The body's hidden state at each sequence's last token. Shape: (sequences, hidden)."""
    # A pad after the text is never attended to and never read, so any token will do, at any position.
    ids, mask = (tensor.to(loaded.device) for tensor in pad(batch, 0, "right"))
    with loaded.runs_on.autocast():
        states: torch.Tensor = loaded.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return states[torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1]


@torch.inference_mode()
def features(loaded: Loaded, tokens: Sequence[Sequence[int]], batch_size: int) -> Features:
    """The frozen body's features. Shape: (texts, hidden). Raises UserError if they are not finite."""
    found = np.empty((len(tokens), loaded.width), dtype=np.float32)
    with tqdm(total=len(tokens), unit="text", desc="features") as progress:
        lengths = [len(sequence) for sequence in tokens]
        for batch in by_length(lengths, 1 if loaded.lengths_matter else batch_size):
            states = last_states(loaded, [tokens[index] for index in batch]).float().cpu()
            check_finite(states, "the features of a review", loaded.runs_on.dtype)
            found[batch] = states.numpy()
            progress.update(len(batch))
    return found


@torch.inference_mode()
def ignores_pads(loaded: Loaded) -> bool:
    """Whether a pad before a prompt changes nothing; some recurrent models read it as text."""
    prompt = torch.tensor([[1, 2, 3, 4]], device=loaded.device)
    once = GenerationConfig(max_new_tokens=1, do_sample=False, return_dict_in_generate=True, output_logits=True)
    logits: list[torch.Tensor] = []
    for pads in (0, 4):
        ids, mask = (functional.pad(part, (pads, 0)) for part in (prompt, torch.ones_like(prompt)))
        logits += loaded.model.generate(input_ids=ids, attention_mask=mask, generation_config=once).logits
    alone, padded = (each.float() for each in logits)
    return torch.allclose(alone, padded, rtol=1e-2, atol=1e-2)
