"""Pruned by a mask that cannot be recomputed elsewhere: one bit per weight on disk, under zstd if that is smaller.

The bits of each tensor are packed as `MaskDigest` hashes them, one tensor after the other, each starting on a new
byte. The digest of the masks is therefore that of the bytes, and reading them is unpacking bits.
"""

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest
from stages.lib.recipes.masks import Mask, MaskDigest, Pruned
from stages.lib.weights.checkpoint import Checkpoint

MASKS = "masks.bin"


class StoredMask(Pruned):
    """The base with the weights of a stored mask set to zero, for methods whose scores depend on data."""

    kind: Literal["mask"] = "mask"
    base_sha256: Digest
    method: Annotated[str, Field(min_length=1)]
    compressed: bool
    """Whether the packed bits are compressed with zstd."""
    pruned: Annotated[int, Field(ge=0)]
    mask_sha256: Digest

    @property
    def files(self) -> frozenset[str]:
        return frozenset({MASKS})

    @classmethod
    def store(
        cls, checkpoint: Checkpoint, method: str, masks: Iterable[tuple[str, Mask]], folder: Path
    ) -> "StoredMask":
        """Write the masks of a base's prunable tensors into a recipe's folder; the recipe that uses them."""
        digest = MaskDigest()
        packed = b"".join(digest.add(mask).tobytes() for _, mask in masks)
        compressed = pa.compress(packed, codec="zstd", asbytes=True)
        smaller = len(compressed) < len(packed)
        (folder / MASKS).write_bytes(compressed if smaller else packed)
        return cls(
            base_sha256=checkpoint.sha256,
            method=method,
            compressed=smaller,
            pruned=digest.pruned,
            mask_sha256=digest.hexdigest(),
        )

    def masks(self, checkpoint: Checkpoint, folder: Path) -> Iterator[tuple[str, Mask]]:
        names = checkpoint.structure.prunable
        shapes = [checkpoint.shape(name) for name in names]
        sizes = [-(-prod(shape) // 8) for shape in shapes]
        damaged = UserError(f"{folder / MASKS}: damaged; `python -m stages.verify` prints the fix")
        try:
            packed = (folder / MASKS).read_bytes()
            if self.compressed:
                packed = pa.decompress(packed, decompressed_size=sum(sizes), codec="zstd", asbytes=True)
        except (OSError, ValueError):
            raise damaged from None
        if len(packed) != sum(sizes):
            raise damaged
        parts = np.split(np.frombuffer(packed, dtype=np.uint8), np.cumsum(sizes)[:-1])
        for name, shape, part in zip(names, shapes, parts, strict=True):
            yield name, np.unpackbits(part, count=prod(shape)).view(np.bool_).reshape(shape)
