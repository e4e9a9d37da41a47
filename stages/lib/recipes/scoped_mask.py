"""Pruned within each matrix, row or N:M group, by scores that follow from the base or a seed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.lib.recipes.choosing import Scores, choose_in_tensor, shared_by_matrices
from stages.lib.recipes.kind import Digest
from stages.lib.recipes.masks import Mask, MaskDigest, Pruned
from stages.lib.weights.checkpoint import Checkpoint

ScopedMethod: TypeAlias = Literal["magnitude", "random"]


class ScopedMask(Pruned):
    """The base with each matrix's, row's or N:M group's smallest scores set to zero; base or seed determine these."""

    kind: Literal["scoped"] = "scoped"
    base_sha256: Digest
    method: ScopedMethod
    scope: Annotated[str, Field(pattern="^(layer|row|[0-9]+:[0-9]+)$")]
    pruned_by_block: list[Annotated[int, Field(ge=0)]]
    seed: Annotated[int, Field(ge=0)] = 0
    """Of random scores."""
    mask_sha256: Digest

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, method: ScopedMethod, scope: str, block_counts: Sequence[int], seed: int
    ) -> "ScopedMask":
        """The recipe that prunes `block_counts` weights of each block. Raises UserError if N:M does not fit."""
        digest = MaskDigest.of(scoped_masks(checkpoint, method, scope, block_counts, seed))
        return cls(
            base_sha256=checkpoint.sha256,
            method=method,
            scope=scope,
            pruned_by_block=list(block_counts),
            seed=seed,
            mask_sha256=digest.hexdigest(),
        )

    @property
    def pruned(self) -> int:
        return sum(self.pruned_by_block)

    def masks(self, checkpoint: Checkpoint, folder: Path) -> Iterator[tuple[str, Mask]]:
        return scoped_masks(checkpoint, self.method, self.scope, self.pruned_by_block, self.seed)


def scoped_masks(
    checkpoint: Checkpoint, method: ScopedMethod, scope: str, block_counts: Sequence[int], seed: int
) -> Iterator[tuple[str, Mask]]:
    """Each prunable tensor's mask, in state-dict order, with the given number of pruned weights per block.

    A block's count is shared by its matrices, and those of its experts, in proportion to their size, and a matrix's by
    its rows or groups.
    """
    counts = shared_by_matrices(block_counts, checkpoint.structure.matrices)
    for number, matrix in enumerate(checkpoint.structure.all_matrices):
        scores: Scores
        if method == "magnitude":
            scores = np.concatenate(list(checkpoint.magnitudes(matrix.name)))
        else:
            scores = random_scores(matrix.size, seed, number)
        yield matrix.name, choose_in_tensor(matrix, scores.reshape(matrix.shape), scope, counts[matrix.name])


def random_scores(size: int, seed: int, matrix: int) -> npt.NDArray[np.uint64]:
    """One number per weight, the same on every machine and in every version of numpy. Shape: (size,)."""
    return np.random.Philox(key=np.array([seed, matrix], dtype=np.uint64)).random_raw(size)
