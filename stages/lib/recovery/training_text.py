"""The windows of text that recovery trains on, in their order."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from stages.lib.corpora.sampling import shuffled
from stages.lib.files.errors import UserError
from stages.lib.inference.calibration import first_tokens
from stages.lib.inference.loading import Loaded
from stages.lib.recovery.schedule import window_tokens, windows_per_step

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover


def training_windows(loaded: Loaded, documents: Sequence[str], settings: "Recover", seed: int) -> list[torch.Tensor]:
    """All windows of all steps, each of shape (tokens,).

    Documents are drawn by the seed until there are tokens for all steps; if the text has fewer, its windows are
    repeated, each time in another order. Raises UserError if the text is shorter than a window, or a window is longer
    than the model's context.
    """
    length = window_tokens(settings)
    if length > loaded.context_length:
        raise UserError(
            f"recover.tokens_per_step is {settings.tokens_per_step}, the model takes {loaded.context_length} tokens; "
            "lower it to that in params.yaml"
        )
    needed = settings.steps * windows_per_step(settings)
    ids = first_tokens(loaded, shuffled(documents, seed), needed * length)
    there = len(ids) // length
    if there == 0:
        raise UserError(
            f"the training text has {len(ids)} tokens, fewer than a window of {length}; lower "
            "recover.tokens_per_step in params.yaml, or leave more of the text for training"
        )
    text = torch.tensor(ids[: there * length]).view(there, length)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(there) for _ in range(0, needed, there)])[:needed]
    return list(text[torch.from_numpy(order)])
