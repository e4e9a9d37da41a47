"""Pruned by magnitude over all matrices at once: the recipe is the threshold, the mask follows from the base."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from stages.lib.recipes.choosing import Threshold, masks_at
from stages.lib.recipes.kind import Digest
from stages.lib.recipes.masks import Mask, MaskDigest, Pruned
from stages.lib.weights.checkpoint import Checkpoint

Part: TypeAlias = Literal["blocks", "tied-head"]
"""Which weights a mask is chosen from: all matrices of the blocks, or the embedding that is also the head."""


class MagnitudePruned(Pruned):
    """The base with the `pruned` smallest magnitudes of a part of it set to zero."""

    kind: Literal["magnitude"] = "magnitude"
    base_sha256: Digest
    part: Part = "blocks"
    threshold_bits: Annotated[str, Field(pattern="^0x[0-7][0-9a-f]{7}$")]
    """The threshold's float32, as hexadecimal bits: no decimal rounds them."""
    ties: Annotated[int, Field(ge=0)]
    """How many weights of exactly the threshold's magnitude are pruned, the first in state-dict order."""
    pruned: Annotated[int, Field(ge=0)]
    mask_sha256: Digest

    @classmethod
    def at(cls, checkpoint: Checkpoint, part: Part, threshold: Threshold) -> "MagnitudePruned":
        """The recipe that prunes a part of a base below a threshold; computes its masks' digest."""
        digest = MaskDigest.of(magnitude_masks(checkpoint, weights_in(part, checkpoint), threshold))
        return cls(
            base_sha256=checkpoint.sha256,
            part=part,
            threshold_bits=f"{threshold.bits:#010x}",
            ties=threshold.ties,
            pruned=digest.pruned,
            mask_sha256=digest.hexdigest(),
        )

    def masks(self, checkpoint: Checkpoint, folder: Path) -> Iterator[tuple[str, Mask]]:
        threshold = Threshold(bits=int(self.threshold_bits, 16), ties=self.ties)
        return magnitude_masks(checkpoint, weights_in(self.part, checkpoint), threshold)


def weights_in(part: Part, checkpoint: Checkpoint) -> list[str]:
    """The names of the tensors that a part's masks are chosen from. The head has to be tied for its part."""
    if part == "blocks":
        return checkpoint.structure.prunable
    assert checkpoint.structure.tied, "the head is the embedding"
    return [checkpoint.structure.embedding]


def magnitude_masks(checkpoint: Checkpoint, names: Sequence[str], threshold: Threshold) -> Iterator[tuple[str, Mask]]:
    """Each named tensor's mask by the magnitudes of its weights, as `masks_at` gives it."""
    return masks_at(threshold, checkpoint.magnitudes, {name: checkpoint.shape(name) for name in names})
