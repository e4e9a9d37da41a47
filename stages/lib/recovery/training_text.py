"""The windows of text that recovery trains on, in the order in which it reads them."""

from collections.abc import Sequence

import numpy as np
import torch

from stages.lib.inference.calibration import first_tokens
from stages.lib.corpora.sampling import shuffled
from stages.lib.files.errors import UserError
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Recover


def training_windows(loaded: Loaded, documents: Sequence[str], settings: Recover, seed: int) -> list[torch.Tensor]:
    """All windows of all steps, each of shape (tokens,).

    Documents are drawn by the seed until there are tokens for all steps; where the text has fewer,
    its windows come again, each time in another order. Raises UserError if it has none, or the
    model takes none of that length.
    """
    length = settings.window
    if length > loaded.context_length:
        raise UserError(
            f"recover.tokens_per_step is {settings.tokens_per_step}, the model takes {loaded.context_length} tokens; "
            "lower it to that in params.yaml"
        )
    needed = settings.steps * settings.windows_per_step
    ids = first_tokens(loaded, shuffled(documents, seed), needed * length)
    there = len(ids) // length
    if there == 0:
        raise UserError(
            f"the text to train on has {len(ids)} tokens, fewer than a window of {length}; lower "
            "recover.tokens_per_step in params.yaml, or leave more of the text to train"
        )
    text = torch.tensor(ids[: there * length]).view(there, length)
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(there) for _ in range(0, needed, there)])[:needed]
    return list(text[torch.from_numpy(order)])
