"""Matches the neurons of two blocks' feed-forwards.

The match is the assignment that maximizes the sum of correlations of the neurons' pre-activations (Hungarian
algorithm, Kuhn 1955), as in Verma, Murray & Duh, "Merging Feed-Forward Sublayers for Compressed Transformers"
(2025, arXiv 2501.06126).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from tqdm import tqdm

from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded
from stages.lib.recipes.merged import Permutation

Activations = npt.NDArray[np.float32]
"""Of the neurons of one block and one kind of pre-activation. Shape: (neurons, tokens)."""


@torch.inference_mode()
def pre_activations(loaded: Loaded, windows: Sequence[torch.Tensor]) -> list[list[Activations]]:
    """By block, the outputs of the layers that tell neurons apart.

    Raises UserError if one is not finite.
    """
    tokens = sum(window.shape[1] for window in windows)
    found: list[list[Activations]] = []
    start = 0

    def store(kinds: Sequence[Activations], module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        # Of shape (tokens, outputs), with or without a batch of one; gate and up may be halves of one layer's outputs.
        outputs = output.flatten(end_dim=-2).float().cpu().numpy().T
        for into, part in zip(kinds, np.split(outputs, len(kinds)), strict=True):
            into[:, start : start + part.shape[1]] = part

    with ExitStack() as hooks:
        for feed_forward in loaded.structure.feed_forwards:
            found.append([])
            for name, parts in feed_forward.pre_activations:
                kinds = [np.empty((feed_forward.neurons, tokens), dtype=np.float32) for _ in range(parts)]
                found[-1] += kinds
                layer = loaded.model.get_submodule(name)
                hooks.enter_context(layer.register_forward_hook(partial(store, kinds)))
        for window in tqdm(windows, unit="window", desc="calibration"):
            loaded.body(input_ids=window, use_cache=False)
            start += window.shape[1]
    for number, kinds in enumerate(found):
        for kind in kinds:
            what = f"the pre-activations of {loaded.structure.module(number)}"
            check_finite(torch.from_numpy(kind), what, loaded.runs_on.dtype)
    return found


def standardize(activations: Activations) -> None:
    """Give each row mean 0 and length 1 (a constant one: 0), in place, so that products of rows are correlations."""
    activations -= activations.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(activations, axis=1, keepdims=True)
    activations /= np.where(lengths > 0, lengths, 1)


def match(first: Sequence[Activations], other: Sequence[Activations]) -> Permutation:
    """Match another block's neurons to a first block's by the correlations of their activations.

    Takes the standardized activations of both blocks for each kind of pre-activation. A gated feed-forward has two
    kinds, whose correlations add up, since a neuron's parts move together.
    """
    correlations = np.sum([ours @ theirs.T for ours, theirs in zip(first, other, strict=True)], axis=0)
    _, columns = linear_sum_assignment(correlations, maximize=True)
    assert len(columns) <= 1 << 16, "more neurons than a uint16 can number"
    return columns.astype(np.uint16)
