"""Masks of pruned weights: their digest, and the common part of all kinds of recipe that hold one."""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest, Materialized, OverBase
from stages.lib.weights.checkpoint import Checkpoint

Mask = npt.NDArray[np.bool_]
"""True where a weight is pruned, in the tensor's shape."""


class MaskDigest:
    """The SHA-256 of a sequence of masks: each mask's bits packed, first element in the highest bit."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.pruned = 0
        """How many weights the masks so far prune."""

    @classmethod
    def of(cls, masks: Iterable[tuple[str, Mask]]) -> "MaskDigest":
        """The digest of named masks, one after the other."""
        digest = cls()
        for _, mask in masks:
            digest.add(mask)
        return digest

    def add(self, mask: Mask) -> npt.NDArray[np.uint8]:
        """Add one more mask; returns its packed bits."""
        packed = np.packbits(mask.reshape(-1))
        self._hash.update(packed.data)
        self.pruned += int(np.count_nonzero(mask))
        return packed

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class Pruned(OverBase):
    """A recipe that sets the weights of a mask to zero."""

    if TYPE_CHECKING:  # each kind declares them, so that its fields keep their order in `recipe.json`
        mask_sha256: Digest

        @property
        def pruned(self) -> int: ...

    def masks(self, checkpoint: Checkpoint, folder: Path) -> Iterator[tuple[str, Mask]]:
        """The mask of each pruned tensor of the base, in state-dict order."""
        raise NotImplementedError

    def checked_masks(self, checkpoint: Checkpoint, folder: Path) -> Iterator[tuple[str, Mask]]:
        """The same masks; use none before the last, after which UserError is raised if they are not the recipe's."""
        digest = MaskDigest()
        try:
            for name, mask in self.masks(checkpoint, folder):
                digest.add(mask)
                yield name, mask
        except (ValueError, IndexError) as error:  # no mask has these fields
            raise UserError(f"{folder}: damaged ({error}); `python -m stages.verify` prints the fix") from None
        if (digest.hexdigest(), digest.pruned) != (self.mask_sha256, self.pruned):
            raise UserError(f"{folder}: the mask is not the recipe's; `python -m stages.verify` prints the fix")

    def apply(self, model: Materialized, folder: Path) -> None:
        import torch

        masks = {name: torch.from_numpy(mask) for name, mask in self.checked_masks(model.checkpoint, folder)}
        for name, mask in masks.items():
            model.weights[name].masked_fill_(mask, 0)
        model.masks = masks
