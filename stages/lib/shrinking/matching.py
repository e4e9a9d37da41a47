"""Matches the neurons of two blocks' feed-forwards.

The match is the assignment that maximizes the sum of correlations of the neurons' pre-activations (Hungarian
algorithm, Kuhn 1955), as in Verma, Murray & Duh, "Merging Feed-Forward Sublayers for Compressed Transformers"
(2025, arXiv 2501.06126).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from stages.lib.recipes.merged import Permutation

Activations = npt.NDArray[np.float32]
"""Of the neurons of one block and one kind of pre-activation. Shape: (neurons, tokens)."""


def standardize(activations: Activations) -> None:
    """Give each row mean 0 and length 1, in place, so that products of rows are correlations.

    A row that is constant correlates with nothing: it becomes 0.
    """
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
