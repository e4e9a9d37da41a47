"""Pruned by a mask that cannot be recomputed elsewhere: one bit per weight on disk, under zstd if that is smaller.

The bits of each tensor are packed as `MaskDigest` hashes them, one tensor after the other, each starting on a new
byte. The digest of the masks is therefore that of the bytes, and reading them is unpacking bits.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest
from stages.lib.recipes.masks import Mask, MaskDigest, Pruned
from stages.lib.weights.checkpoint import Checkpoint

MASKS = "masks.bin"

Shapes = Sequence[tuple[str, tuple[int, ...]]]
"""The names and shapes of the pruned tensors, in their order."""


class StoredMask(Pruned):
    """The base with the weights of a stored mask set to zero.

    For methods whose scores depend on data, which cannot be recomputed to the bit elsewhere.
    """

    beside: ClassVar[frozenset[str]] = frozenset({MASKS})

    kind: Literal["mask"] = "mask"
    base_sha256: Digest
    method: Annotated[str, Field(min_length=1)]
    compressed: bool
    """Whether the packed bits are compressed with zstd."""
    pruned: Annotated[int, Field(ge=0)]
    mask_sha256: Digest

    @classmethod
    def store(
        cls, checkpoint: Checkpoint, method: str, masks: Iterable[tuple[str, Mask]], folder: Path
    ) -> "StoredMask":
        """Write the masks of a base's prunable tensors into a recipe's folder; the recipe that uses them."""
        digest, compressed = write_masks(masks, folder)
        return cls(
            base_sha256=checkpoint.sha256,
            method=method,
            compressed=compressed,
            pruned=digest.pruned,
            mask_sha256=digest.hexdigest(),
        )

    def masks(self, checkpoint: Checkpoint, folder: Path) -> Iterator[tuple[str, Mask]]:
        shapes = [(name, checkpoint.shape(name)) for name in checkpoint.prunable]
        return read_masks(folder, shapes, self.compressed)


def write_masks(masks: Iterable[tuple[str, Mask]], folder: Path) -> tuple[MaskDigest, bool]:
    """Write masks into a folder; their digest, and whether they are compressed."""
    digest = MaskDigest()
    packed = b"".join(digest.add(mask).tobytes() for _, mask in masks)
    compressed = pa.compress(packed, codec="zstd", asbytes=True)
    smaller = len(compressed) < len(packed)
    (folder / MASKS).write_bytes(compressed if smaller else packed)
    return digest, smaller


def read_masks(folder: Path, shapes: Shapes, compressed: bool) -> Iterator[tuple[str, Mask]]:
    """Read masks back, in the order of `shapes`. Raises UserError if the file does not have the expected length."""
    sizes = [-(-prod(shape) // 8) for _, shape in shapes]
    damaged = UserError(f"{folder / MASKS}: damaged; `python -m stages.verify` prints the fix")
    try:
        packed = (folder / MASKS).read_bytes()
        if compressed:
            packed = pa.decompress(packed, decompressed_size=sum(sizes), codec="zstd", asbytes=True)
    except (OSError, ValueError):
        raise damaged from None
    if len(packed) != sum(sizes):
        raise damaged
    parts = np.split(np.frombuffer(packed, dtype=np.uint8), np.cumsum(sizes)[:-1])
    for (name, shape), part in zip(shapes, parts, strict=True):
        yield name, np.unpackbits(part, count=prod(shape)).view(np.bool_).reshape(shape)
