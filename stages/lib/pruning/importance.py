"""How much a part of a model matters: by its outliers, by the curvature, or by pruning it alone on trial."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from tqdm import tqdm

from stages.lib.inference.blockwise import BlockInputs, through_blocks
from stages.lib.inference.likelihood import losses_within
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.calibrated import input_statistics, restore
from stages.lib.pruning.curvature import curvatures
from stages.lib.pruning.gradual import masks_over_all
from stages.lib.pruning.kfac import KFAC
from stages.lib.pruning.selection import select
from stages.lib.pruning.wanda import input_squares, wanda_scores
from stages.lib.recipes.choosing import MatrixCounts
from stages.lib.recipes.magnitude import magnitude_masks

OUTLIER = 5.0
"""An outlier is a score above this many times the block's mean, OWL's M: 5 or 7 in the paper."""
LEAST_GROWTH = 1e-4
"""In nats per token: a block whose loss grows by less, or shrinks, counts as one whose loss grows by this."""


@torch.no_grad()
def outlier_shares(loaded: Loaded, windows: Sequence[torch.Tensor]) -> list[float]:
    """The share of outliers among each block's Wanda scores, in the unpruned model.

    Yin et al. (2024), "OWL: A Missing Secret Sauce for Pruning LLMs to High Sparsity", ICML.
    """
    shares = []
    for run, matrices in zip(through_blocks(loaded, windows), loaded.structure.matrices, strict=True):
        found = input_statistics(loaded, matrices, run, input_squares)
        pairs = (
            pair
            for matrix in matrices
            for pair in zip(matrix.by_output(loaded.weights[matrix.name]), found[matrix.name], strict=True)
        )
        scores = torch.cat([wanda_scores(*pair).flatten() for pair in pairs])
        shares.append(float((scores > OUTLIER * scores.double().mean()).double().mean()))
    return shares


@torch.no_grad()
def curvature_counts(loaded: Loaded, windows: Sequence[torch.Tensor], k: int) -> MatrixCounts:
    """How many weights each single matrix loses if `kfac` prunes k over all matrices; the model is left as it is."""
    method = KFAC.on_gradients
    assert method is not None
    masks = masks_over_all(loaded, method, curvatures(loaded, windows, method.statistic), k)
    return {name: [int(mask.sum())] for name, mask in masks.items()}


def block_sensitivities(loaded: Loaded, windows: Sequence[torch.Tensor], sparsity: float) -> list[float]:
    """The logarithm of the increase in loss on some text when each block is pruned alone, by magnitude.

    The increase differs between blocks by orders of magnitude, hence the logarithm.
    """
    inputs = BlockInputs(loaded)
    with inputs.recorded():
        dense = _loss(loaded, windows)
    found = []
    for number in tqdm(range(len(loaded.blocks)), unit="block", desc="sensitivity"):
        names = loaded.structure.weights([number])
        zero_smallest(loaded, names, sparsity)
        with inputs.resumed(number):
            found.append(math.log(max(_loss(loaded, windows) - dense, LEAST_GROWTH)))
        restore(loaded, names)
    return found


def _loss(loaded: Loaded, windows: Sequence[torch.Tensor]) -> float:
    """The mean negative log-likelihood of the text's tokens that have one before them in their window, in nats."""
    first = loaded.first_target
    sequences = [window[0].cpu().numpy() for window in windows if window.shape[1] > first]  # the last may be shorter
    return float(np.concatenate(losses_within(loaded, sequences, [first] * len(sequences), 1)).mean())


@torch.no_grad()
def zero_smallest(loaded: Loaded, names: Sequence[str], sparsity: float) -> int:
    """Zero a share of the named tensors together, the smallest by the checkpoint's magnitudes; returns their number."""
    checkpoint = loaded.checkpoint
    k = round(sparsity * sum(checkpoint.size(name) for name in names))
    for name, mask in magnitude_masks(checkpoint, names, select(checkpoint, names, k)):
        weight = loaded.weights[name]
        weight.masked_fill_(torch.from_numpy(mask).to(weight.device), 0)
    return k
