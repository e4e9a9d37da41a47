"""Scores the text by sparsity, and with each kind of matrix or each block pruned alone.

One model in memory serves all points. Masks of growing sparsity are nested, so each adds to the one before; a part
that was pruned alone is restored from the checkpoint.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from stages.lib.corpora.rows import read_rows
from stages.lib.evaluation.perplexity import sums
from stages.lib.files.places import MODEL, TEXT
from stages.lib.inference.blockwise import BlockInputs
from stages.lib.inference.device import set_up
from stages.lib.inference.likelihood import TokenizedText, negative_log_likelihoods, tokenize
from stages.lib.inference.loading import Loaded, load_original
from stages.lib.pruning.trial_pruning import restore, zero_smallest
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params, Perplexity


def score_sensitivity(params: "Params") -> pd.DataFrame:
    """The scores of all points of `params.sensitivity`.

    Columns: pruned (sparsities, matrices or blocks), point (its sparsity, matrix or block), pruned_weights,
    effective_parameters, and those of `score`. The first point of all has nothing pruned.
    """
    settings = params.sensitivity
    loaded = load_original(MODEL, set_up(params.compute, params.seed))
    text = tokenize(loaded.tokenizer, read_rows(TEXT, "test")["text"].tolist()).head(settings.tokens)
    scored = Sensitivity(loaded, text, params.perplexity)
    points = [
        scored.unpruned(),
        *scored.by_sparsity(settings.sparsities),
        *scored.by_matrix(settings.alone),
        *scored.by_block(settings.alone),
    ]
    return pd.concat(points, ignore_index=True)


class Sensitivity:
    """A model, the text that it is scored on, and its scores while nothing is pruned."""

    def __init__(self, loaded: Loaded, text: TokenizedText, settings: "Perplexity") -> None:
        self._loaded = loaded
        self._family = loaded.family
        self._text = text
        self._settings = settings
        self._zeros = count_zeros(loaded.checkpoint)
        self._blocks = range(loaded.checkpoint.depth)
        self._inputs = BlockInputs(loaded.blocks)
        with self._inputs.recorded():
            self._dense = self._score()

    def unpruned(self) -> pd.DataFrame:
        """The scores with nothing pruned."""
        return self._point("nothing", "", [], 0, self._dense)

    def by_sparsity(self, sparsities: Sequence[float]) -> Iterator[pd.DataFrame]:
        """All prunable weights together, at each of the ascending sparsities."""
        names = self._family.weights(self._blocks)
        for sparsity in tqdm(sparsities, unit="point", desc="sparsities"):
            k = zero_smallest(self._loaded, names, sparsity)
            yield self._point("sparsities", str(sparsity), names, k, self._score() if k else self._dense)
        restore(self._loaded, names)

    def by_matrix(self, sparsity: float) -> Iterator[pd.DataFrame]:
        """Each kind of matrix alone, in all blocks."""
        for matrix in tqdm(self._family.matrices, unit="point", desc="matrices"):
            names = [self._family.weight(block, matrix) for block in self._blocks]
            yield self._alone("matrices", matrix, names, sparsity)

    def by_block(self, sparsity: float) -> Iterator[pd.DataFrame]:
        """Each block alone."""
        for block in tqdm(self._blocks, unit="point", desc="blocks"):
            with self._inputs.resumed(block):
                yield self._alone("blocks", str(block), self._family.weights([block]), sparsity)

    def _alone(self, pruned: str, point: str, names: Sequence[str], sparsity: float) -> pd.DataFrame:
        k = zero_smallest(self._loaded, names, sparsity)
        scores = self._point(pruned, point, names, k, self._score())
        restore(self._loaded, names)
        return scores

    def _score(self) -> pd.DataFrame:
        losses = negative_log_likelihoods(self._loaded, self._text, self._settings)
        return sums(self._text, losses, self._settings)

    def _point(self, pruned: str, point: str, names: Sequence[str], k: int, scores: pd.DataFrame) -> pd.DataFrame:
        checkpoint = self._loaded.checkpoint
        non_zero = sum(checkpoint.size(name) - zeros for name, zeros in self._zeros.items())
        columns = {
            "pruned": pruned,
            "point": point,
            "pruned_weights": k,
            "effective_parameters": non_zero - max(0, k - sum(self._zeros[name] for name in names)),
        }
        return pd.concat([pd.DataFrame(columns, index=scores.index), scores], axis=1)


def count_zeros(checkpoint: Checkpoint) -> dict[str, int]:
    """How many entries of each tensor are zero; one pass over the weights."""
    return {
        name: sum(bits.size - int(np.count_nonzero(bits)) for bits in checkpoint.magnitudes(name))
        for name in checkpoint.names
    }
