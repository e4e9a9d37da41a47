"""A model's final hidden states, from which its head makes logits, and the original's, kept to compare others with.

A pass over a text computes the logits of each token, far too many to keep: 2.4 GB for 12,045 tokens of SmolLM2. The
states before the head are 28 MB, and the head is a small part of the work of a pass. So the original runs once.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import ModelOutput

from stages.lib.files.hashing import checked_sums, write_sums
from stages.lib.files.writing import new_folder
from stages.lib.inference.device import Device
from stages.lib.inference.loading import Loaded, load_head, replaced_forward
from stages.lib.weights.checkpoint import Checkpoint


@dataclass
class _BodyOutput(ModelOutput):  # type: ignore[misc]
    """What a body returns, with nothing but the final hidden states."""

    last_hidden_state: torch.Tensor

    def __getattr__(self, name: str) -> None:  # models read more, such as past_key_values, and pass it on
        if name.startswith("__"):
            raise AttributeError(name)


def logits_of(loaded: Loaded, states: torch.Tensor) -> torch.Tensor:
    """The logits of final hidden states, in float32. Shapes: (tokens, hidden) and (tokens, vocabulary).

    The model itself makes them, since some models scale or cap them: it runs with these states in place of a pass of
    its body.
    """
    output = _BodyOutput(last_hidden_state=states[None])
    tokens = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
    with replaced_forward([loaded.body], lambda *arguments, **named: output):
        logits: torch.Tensor = loaded.model(input_ids=tokens, use_cache=False).logits[0]
    return logits.float()


def vocabulary(loaded: Loaded) -> int:
    """The number of tokens that a model chooses from."""
    return int(loaded.model.get_output_embeddings().weight.shape[0])


@contextmanager
def new_final_states(folder: Path) -> Iterator[Callable[[int, torch.Tensor, torch.Tensor], None]]:
    """Yield a function that writes the final hidden states before a window's scored tokens, and these tokens.

    A window is a safetensors file, and the folder appears whole.
    """
    with new_folder(folder) as temporary:

        def keep(window: int, states: torch.Tensor, tokens: torch.Tensor) -> None:
            save_file({"states": states.contiguous(), "tokens": tokens.contiguous()}, _file(temporary, window))

        yield keep
        write_sums(temporary)


class OriginalStates:
    """The original's final hidden states before each scored token of a text, window by window, and its head.

    Raises UserError if a file is damaged or missing.
    """

    def __init__(self, folder: Path, checkpoint: Checkpoint, device: Device) -> None:
        checked_sums(folder)
        self._folder = folder
        self.head = load_head(checkpoint, device)

    def of(self, window: int) -> torch.Tensor:
        """The states before a window's scored tokens. Shape: (tokens, hidden)."""
        return self._read(window, "states").to(self.head.device)

    def tokens(self, window: int) -> torch.Tensor:
        """A window's scored tokens, none if there is no such window. Shape: (tokens,)."""
        return self._read(window, "tokens") if _file(self._folder, window).is_file() else torch.empty(0)

    def _read(self, window: int, name: str) -> torch.Tensor:
        with safe_open(_file(self._folder, window), framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor


def _file(folder: Path, window: int) -> Path:
    return folder / f"window-{window:06}.safetensors"
