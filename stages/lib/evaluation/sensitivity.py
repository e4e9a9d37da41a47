"""Perplexity by sparsity, and with each kind of matrix or each block pruned alone.

One model in memory serves all points. Masks of growing sparsity are nested, so each adds to the one
before; a part that was pruned alone is read back from the checkpoint.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.lib.files.writing import significant
from stages.lib.inference.block_inputs import BlockInputs
from stages.lib.inference.blockwise import blocks_of
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.recipes.counts import count_zeros
from stages.lib.weights.families import Family
from stages.lib.figures.measures import items
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Perplexity
from stages.lib.inference.likelihood import TokenizedText, negative_log_likelihoods, sums
from stages.lib.figures.statistics import percentile_interval, resampled_ratios
from stages.lib.pruning.trial_pruning import restore, zero_smallest

Point: TypeAlias = dict[str, Any]
"""A row of a table that is ready to plot."""


class Sensitivity:
    """A model, the text that it is scored on, and its scores while nothing is pruned."""

    def __init__(
        self,
        loaded: Loaded,
        checkpoint: Checkpoint,
        family: Family,
        text: TokenizedText,
        settings: Perplexity,
        resamples: int,
        seed: int,
    ) -> None:
        self._loaded = loaded
        self._checkpoint = checkpoint
        self._family = family
        self._text = text
        self._settings = settings
        self._draws = resamples, seed
        self._zeros = count_zeros(checkpoint)
        self._non_zero = sum(checkpoint.size(name) - zeros for name, zeros in self._zeros.items())
        self._depth = family.depth(loaded.model.config.to_dict())
        self._inputs = BlockInputs(blocks_of(loaded, family))
        self._dense = self._score(self._inputs.recorded())

    def by_sparsity(self, sparsities: Sequence[float]) -> Iterator[Point]:
        """All prunable weights together, at each of the ascending sparsities."""
        names = self._family.prunable(self._loaded.model.config.to_dict())
        for sparsity in tqdm(sparsities, unit="point", desc="sparsities"):
            k = self._prune(names, sparsity)
            rows = self._score() if k else self._dense
            yield {"sparsity": sparsity, **self._point(rows, names, k)}
        self._restore(names)

    def by_matrix(self, sparsity: float) -> Iterator[Point]:
        """Each kind of matrix alone, in all blocks."""
        for matrix in tqdm(self._family.matrices, unit="point", desc="matrices"):
            names = [self._family.weight(block, matrix) for block in range(self._depth)]
            yield {"matrix": matrix, **self._alone(names, sparsity)}

    def by_block(self, sparsity: float) -> Iterator[Point]:
        """Each block alone."""
        for block in tqdm(range(self._depth), unit="point", desc="blocks"):
            names = [self._family.weight(block, matrix) for matrix in self._family.matrices]
            yield {"block": block, **self._alone(names, sparsity, self._inputs.resumed(block))}

    def _alone(
        self, names: Sequence[str], sparsity: float, within: AbstractContextManager[None] | None = None
    ) -> Point:
        k = self._prune(names, sparsity)
        point = self._point(self._score(within), names, k)
        self._restore(names)
        return point

    def _prune(self, names: Sequence[str], sparsity: float) -> int:
        return zero_smallest(self._loaded, self._checkpoint, names, sparsity)

    def _restore(self, names: Sequence[str]) -> None:
        restore(self._loaded, self._checkpoint, names)

    def _score(self, within: AbstractContextManager[None] | None = None) -> pd.DataFrame:
        with within or nullcontext():
            losses = negative_log_likelihoods(self._loaded, self._text, self._settings)
        return items("perplexity", sums(self._text, losses, self._settings))

    def _point(self, rows: pd.DataFrame, names: Sequence[str], k: int) -> Point:
        """The figures of one point; `ratio` is to the perplexity of the same text with nothing pruned."""
        tokens = rows["tokens"].to_numpy(np.float64)
        nll = rows["nll"].to_numpy(np.float64)
        added = nll - self._dense["nll"].to_numpy(np.float64)
        draws = np.exp(resampled_ratios(np.vstack([nll, added]), tokens, *self._draws))
        zeros = sum(self._zeros[name] for name in names)
        point: Point = {
            "pruned_weights": k,
            "effective_parameters": self._non_zero - max(0, k - zeros),
        }
        for key, values, drawn in zip(("perplexity", "ratio"), (nll, added), draws, strict=True):
            interval = percentile_interval(drawn)
            point[key] = significant(float(np.exp(values.sum() / tokens.sum())))
            point[f"{key}_low"], point[f"{key}_high"] = significant(interval.low), significant(interval.high)
        return {**point, "tokens": int(tokens.sum())}
