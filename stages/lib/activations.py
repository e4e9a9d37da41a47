"""What the neurons of every block read, gathered in one pass over calibration text."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stages.lib.errors import UserError
from stages.lib.families import Family, FeedForward
from stages.lib.merging import Activations
from stages.lib.models import Loaded
from stages.lib.perplexity import SEPARATOR

WINDOW = 1024
"""Tokens in a window of calibration text, or what the model takes, if that is less."""


@torch.inference_mode()
def pre_activations(
    loaded: Loaded, family: Family, feed_forward: FeedForward, depth: int, documents: Sequence[str], tokens: int
) -> list[list[Activations]]:
    """For each block, its layers' outputs over the first `tokens` of the text, each (neurons, tokens).

    Raises UserError if the text is shorter.
    """
    ids: list[int] = []
    for document in documents:  # one by one: of a large corpus only a little is needed
        if len(ids) < tokens:
            ids += loaded.tokenizer(document + SEPARATOR, add_special_tokens=False, verbose=False)["input_ids"]
    if len(ids) < tokens:
        raise UserError(
            f"the calibration text has {len(ids)} tokens, compare.calibration_tokens is {tokens}; lower it in "
            "params.yaml, or leave more of the text to train (test_share, or files under train)"
        )
    window = min(WINDOW, loaded.context_length)
    found: list[list[Activations]] = [[] for _ in range(depth)]
    hooks = []
    for block in range(depth):
        for layer in feed_forward.pre_activations:
            module = loaded.model.get_submodule(f"{family.block.format(block)}.{layer}")
            neurons = loaded.model.get_parameter(f"{family.block.format(block)}.{layer}.weight")
            axis = feed_forward.neuron_axes[f"{layer}.weight"]
            assert axis is not None
            found[block].append(np.empty((neurons.shape[axis], tokens), dtype=np.float32))
            hooks.append(module.register_forward_hook(_store(found[block][-1], window)))
    for start in tqdm(range(0, tokens, window), unit="window", desc="calibration"):
        part = torch.tensor([ids[start : min(start + window, tokens)]], device=loaded.device)
        loaded.body(input_ids=part, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def _store(into: Activations, window: int) -> Callable[[torch.nn.Module, Any, torch.Tensor], None]:
    """A hook that puts what a layer gives for each window of one text in the place of its tokens."""
    done = 0

    def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal done
        count = output.shape[1]
        into[:, done : done + count] = output[0].float().cpu().numpy().T
        done += count

    return hook
