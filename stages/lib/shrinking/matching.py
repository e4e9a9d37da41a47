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
from stages.lib.recipes.merged import Permutation, feed_forward_of

Activations = npt.NDArray[np.float32]
"""Of the neurons of one block and one kind of pre-activation. Shape: (neurons, tokens)."""


@torch.inference_mode()
def pre_activations(loaded: Loaded, windows: Sequence[torch.Tensor]) -> list[list[Activations]]:
    """By block, the outputs of the layers that tell neurons apart.

    Raises UserError if the family describes none, or one is not finite.
    """
    tokens, feed_forward = sum(window.shape[1] for window in windows), feed_forward_of(loaded.family)
    found: list[list[Activations]] = []
    start = 0

    def store(into: Activations, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> None:
        into[:, start : start + output.shape[1]] = output[0].float().cpu().numpy().T

    with ExitStack() as hooks:
        for block in loaded.blocks:
            found.append([])
            for name in feed_forward.pre_activations:
                layer, axis = block.get_submodule(name), feed_forward.neuron_axes[f"{name}.weight"]
                assert axis is not None
                found[-1].append(np.empty((layer.get_parameter("weight").shape[axis], tokens), dtype=np.float32))
                hooks.enter_context(layer.register_forward_hook(partial(store, found[-1][-1])))
        for window in tqdm(windows, unit="window", desc="calibration"):
            loaded.body(input_ids=window, use_cache=False)
            start += window.shape[1]
    for number, kinds in enumerate(found):
        for kind in kinds:
            what = f"the pre-activations of {loaded.family.block.format(number)}"
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
