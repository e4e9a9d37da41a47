"""The pre-activations of every block's neurons, gathered in one pass over calibration text."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from stages.lib.inference.loading import Loaded
from stages.lib.shrinking.matching import Activations
from stages.lib.weights.family import Family, FeedForward


@torch.inference_mode()
def pre_activations(
    loaded: Loaded, family: Family, feed_forward: FeedForward, depth: int, windows: Sequence[torch.Tensor]
) -> list[list[Activations]]:
    """For each block, its layers' outputs over all windows, each of shape (neurons, tokens)."""
    tokens = sum(window.shape[1] for window in windows)
    found: list[list[Activations]] = [[] for _ in range(depth)]
    hooks = []
    for block in range(depth):
        for layer in feed_forward.pre_activations:
            module = loaded.model.get_submodule(family.inside(block, layer))
            neurons = loaded.model.get_parameter(family.weight(block, layer))
            axis = feed_forward.neuron_axes[f"{layer}.weight"]
            assert axis is not None
            found[block].append(np.empty((neurons.shape[axis], tokens), dtype=np.float32))
            hooks.append(module.register_forward_hook(_store(found[block][-1])))
    for window in tqdm(windows, unit="window", desc="calibration"):
        loaded.body(input_ids=window, use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


def _store(into: Activations) -> Callable[[torch.nn.Module, Any, torch.Tensor], None]:
    """A hook that stores a layer's output for each window of one text, at the place of its tokens."""
    done = 0

    def hook(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        nonlocal done
        count = output.shape[1]
        into[:, done : done + count] = output[0].float().cpu().numpy().T
        done += count

    return hook
