"""Writes the recipes of merged models; each pair of blocks is matched once, for all n."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file
from tqdm import tqdm

from stages.lib.inference.calibration import calibration_windows
from stages.lib.inference.loading import Loaded
from stages.lib.recipes.merged import (
    MergedFeedForward,
    Permutation,
    block_groups,
    feed_forward_of,
    merge,
    write_permutations,
)
from stages.lib.shrinking.activations import pre_activations
from stages.lib.shrinking.matching import Activations, match, standardize
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.families import family_of, read_config
from stages.lib.weights.family import Family


@dataclass
class Merger:
    """The activations of every block of a model, and the matches found so far."""

    checkpoint: Checkpoint
    family: Family
    activations: list[list[Activations]]
    """By block and kind of pre-activation, standardized."""
    _matched: dict[tuple[int, int], Permutation] = field(default_factory=dict)

    @classmethod
    def gather(cls, loaded: Loaded, checkpoint: Checkpoint, documents: Sequence[str], tokens: int) -> "Merger":
        """Run the documents' first `tokens` through the model. Raises UserError if there are fewer."""
        family = family_of(checkpoint.folder)
        depth = family.depth(read_config(checkpoint.folder))
        windows = calibration_windows(loaded, documents, tokens, "compare.calibration_tokens")
        activations = pre_activations(loaded, family, feed_forward_of(family), depth, windows)
        for kinds in activations:
            for kind in kinds:
                standardize(kind)
        return cls(checkpoint, family, activations)

    def merge(self, n: int, anchor_only: bool, folder: Path) -> MergedFeedForward:
        """The recipe that merges each n blocks; its permutations are written into the folder."""
        depth = len(self.activations)
        permutations = {
            block: self._match(group[0], block)
            for group in tqdm(block_groups(depth, n), unit="group", desc=f"merged_{n}")
            for block in group[1:]
        }
        write_permutations(permutations, folder)
        merged = merge(load_file(self.checkpoint.path), self.family, depth, n, anchor_only, permutations)
        return MergedFeedForward(base_sha256=self.checkpoint.sha256, n=n, anchor_only=anchor_only, merged_sha256=merged)

    def _match(self, first: int, block: int) -> Permutation:
        if (first, block) not in self._matched:
            self._matched[first, block] = match(self.activations[first], self.activations[block])
        return self._matched[first, block]
