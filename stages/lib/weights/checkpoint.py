"""A safetensors file as memory-mapped arrays: no model class, no copy."""

import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from stages.lib.files.errors import UserError, out_of_memory
from stages.lib.files.hashing import checked_sums
from stages.lib.weights.config import read_config
from stages.lib.weights.structure import Structure

WEIGHTS = "model.safetensors"

CHUNK = 1 << 18
"""Elements processed in one step, so that their bits and intermediate results stay in the L2 cache."""

# bfloat16 has no numpy type: its bits are the upper half of a float32's.
_DTYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}

Bits = npt.NDArray[np.uint32]


class Checkpoint:
    """The weights in a model folder, read where they lie on disk.

    Raises UserError if the file is missing or damaged, or a tensor is not float32, float16 or bfloat16.
    """

    def __init__(self, model: Path) -> None:
        self.folder = model
        self.path = model / WEIGHTS
        if not self.path.is_file():
            raise UserError(f"{self.path}: not found; restore it with `dvc repro download` or `dvc checkout`")
        try:
            # The library checks header, offsets and length before anything is read.
            with safe_open(self.path, framework="numpy"):
                pass
        except SafetensorError as error:
            if out_of_memory(error):
                raise
            raise UserError(f"{self.path}: truncated or damaged ({error}); fetch it again") from None
        with self.path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self._entries = header
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                raise UserError(
                    f"{self.path}: {name} is {entry['dtype']}, and only {', '.join(_DTYPES)} can be pruned; "
                    "save the model as float32 first"
                )
        self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r", offset=8 + length)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The content of the folder's `config.json`. Raises UserError if it cannot be read."""
        return read_config(self.folder)

    @cached_property
    def structure(self) -> Structure:
        """Raises UserError if the folder's config is not that of a causal language model."""
        from stages.lib.weights.module_tree import structure_of  # torch and transformers take seconds to import

        return structure_of(self.config, self.folder)

    @property
    def names(self) -> list[str]:
        """All tensors' names. A tied tensor is stored once."""
        return list(self._entries)

    def size(self, name: str) -> int:
        """The number of a tensor's elements."""
        return int(np.prod(self.shape(name), dtype=np.int64))

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._entry(name)["shape"])

    def raw(self, name: str) -> npt.NDArray[np.generic]:
        """A tensor's elements, flat, as a read-only view of the file (bfloat16 as uint16)."""
        entry = self._entry(name)
        begin, end = entry["data_offsets"]
        return self._bytes[begin:end].view(_DTYPES[entry["dtype"]])

    def magnitudes(self, name: str) -> Iterator[Bits]:
        """A tensor's absolute values in chunks, as the bits of their float32s.

        Floats of one sign order like their bit patterns, and every float16 and bfloat16 is a
        float32, so these integers compare as the magnitudes do, across dtypes, zeros included.
        """
        flat = self.raw(name)
        widen = self._entry(name)["dtype"] == "BF16"
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            if widen:
                bits = chunk.astype(np.uint32)
                bits <<= np.uint32(16)
                bits &= np.uint32(0x7FFFFFFF)
            else:
                bits = chunk.astype(np.float32, copy=False).view(np.uint32) & np.uint32(0x7FFFFFFF)
            yield bits

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file. Raises UserError if any file of the folder does not match the folder's sums."""
        return checked_sums(self.folder)[WEIGHTS]

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise UserError(f"{self.path}: holds no tensor {name}; its config.json is of another model")
        return self._entries[name]  # type: ignore[no-any-return]
