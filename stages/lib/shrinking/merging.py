"""Writes the recipes of merged models; each pair of blocks is matched once, for all n."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from stages.lib.inference.loading import Loaded
from stages.lib.recipes.merged import MergedFeedForward, Permutation, block_groups, merge, write_permutations
from stages.lib.shrinking.matching import match, pre_activations, standardize


class Merger:
    """The activations of every block of a model on some text, and the matches found so far."""

    def __init__(self, loaded: Loaded, windows: Sequence[torch.Tensor]) -> None:
        self._checkpoint = loaded.checkpoint
        self._activations = pre_activations(loaded, windows)
        for kinds in self._activations:
            for kind in kinds:
                standardize(kind)
        self._matched: dict[tuple[int, int], Permutation] = {}

    def merge(self, n: int, anchor_only: bool, folder: Path) -> MergedFeedForward:
        """The recipe that merges every n consecutive blocks; its permutations are written into the folder."""
        checkpoint = self._checkpoint
        permutations: dict[int, Permutation] = {}
        for group in tqdm(block_groups(len(self._activations), n), unit="group", desc=f"merged_{n}"):
            for first, block in ((group[0], block) for block in group[1:]):
                if (first, block) not in self._matched:
                    self._matched[first, block] = match(self._activations[first], self._activations[block])
                permutations[block] = self._matched[first, block]
        write_permutations(permutations, folder)
        merged = merge(checkpoint.tensors(), checkpoint.structure, n, anchor_only, permutations)
        return MergedFeedForward(base_sha256=checkpoint.sha256, n=n, anchor_only=anchor_only, merged_sha256=merged)
