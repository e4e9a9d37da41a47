"""Masks that cannot be recomputed, on disk: one bit a weight, and zstd over the bits where it makes them fewer.

The bits of each tensor are packed as `MaskDigest` hashes them, one tensor after the other, each from
a new byte. So the digest of the masks is that of the bytes, and reading them is unpacking bits.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np
import pyarrow as pa

from stages.lib.files.errors import UserError
from stages.lib.recipes.masks import Mask, MaskDigest

MASKS = "masks.bin"

Shapes = Sequence[tuple[str, tuple[int, ...]]]
"""The names and shapes of the tensors that are pruned, in their order."""


def write_masks(masks: Iterable[tuple[str, Mask]], folder: Path) -> tuple[MaskDigest, bool]:
    """Write masks into a folder; their digest, and whether they are compressed."""
    digest = MaskDigest()
    packed = b"".join(digest.add(mask).tobytes() for _, mask in masks)
    compressed = pa.compress(packed, codec="zstd", asbytes=True)
    smaller = len(compressed) < len(packed)
    (folder / MASKS).write_bytes(compressed if smaller else packed)
    return digest, smaller


def read_masks(folder: Path, shapes: Shapes, compressed: bool) -> Iterator[tuple[str, Mask]]:
    """Read masks back, in the order of `shapes`. Raises UserError if the file is not as long as they ask for."""
    sizes = [-(-prod(shape) // 8) for _, shape in shapes]
    damaged = UserError(f"{folder / MASKS}: damaged; `python -m stages.verify` tells how to mend it")
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
