"""A model's weights as memory-mapped arrays: no model class, no copy."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import checked_sums
from stages.lib.weights.config import read_config
from stages.lib.weights.shards import WEIGHT_DTYPES, Shard, Stored, open_shards
from stages.lib.weights.structure import Structure

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 18
"""Elements processed in one step, so that their bits and intermediate results stay in the L2 cache."""

# bfloat16 has no numpy type: its bits are the upper half of a float32's.
_DTYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}

Bits = npt.NDArray[np.uint32]


class Checkpoint:
    """The weights in a model folder, in one file or several, read where they lie on disk.

    Raises UserError if a file is missing or damaged, or a tensor is not float32, float16 or bfloat16.
    """

    def __init__(self, model: Path) -> None:
        self.folder = model
        shards = open_shards(model, "restore it with `dvc repro download` or `dvc checkout`")
        self.files = [shard.path for shard in shards]
        """Of the weights."""
        self._holder: dict[str, Shard] = {name: shard for shard in shards for name in shard.tensors}
        for name, shard in self._holder.items():
            if shard.tensors[name].dtype not in WEIGHT_DTYPES:
                raise UserError(
                    f"{shard.path}: {name} is {shard.tensors[name].dtype}, and only {', '.join(WEIGHT_DTYPES)} can be "
                    "pruned; save the model as float32 first"
                )

    @property
    def path(self) -> Path:
        """Where the weights are, for error lines: their file, or the folder of several."""
        return self.files[0] if len(self.files) == 1 else self.folder

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
        """All tensors' names, file by file. A tied tensor is stored once."""
        return list(self._holder)

    def size(self, name: str) -> int:
        """The number of a tensor's elements."""
        return self._stored(name).size

    def shape(self, name: str) -> tuple[int, ...]:
        return self._stored(name).shape

    def raw(self, name: str) -> npt.NDArray[np.generic]:
        """A tensor's elements, flat, as a read-only view of its file (bfloat16 as uint16)."""
        dtype = _DTYPES[self._stored(name).dtype]
        return self._holder[name].bytes_of(name).view(dtype)

    def magnitudes(self, name: str) -> Iterator[Bits]:
        """A tensor's absolute values in chunks, as the bits of their float32s.

        Floats of one sign order like their bit patterns, and every float16 and bfloat16 is a
        float32, so these integers compare as the magnitudes do, across dtypes, zeros included.
        """
        flat = self.raw(name)
        widen = self._stored(name).dtype == "BF16"
        for start in range(0, flat.size, CHUNK):
            chunk = flat[start : start + CHUNK]
            if widen:
                bits = chunk.astype(np.uint32)
                bits <<= np.uint32(16)
                bits &= np.uint32(0x7FFFFFFF)
            else:
                bits = chunk.astype(np.float32, copy=False).view(np.uint32) & np.uint32(0x7FFFFFFF)
            yield bits

    def tensors(self, names: Iterable[str] | None = None) -> "dict[str, torch.Tensor]":
        """The named tensors, or all, which share the memory of the mapped files until they are changed."""
        wanted: dict[Path, list[str]] = {}
        for name in self.names if names is None else names:
            self._stored(name)
            wanted.setdefault(self._holder[name].path, []).append(name)
        found = {}
        for path, inside in wanted.items():
            with safe_open(path, framework="pt") as file:
                found.update({name: file.get_tensor(name) for name in inside})
        return found

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 of the file, or, for several, of their lines in the folder's sums.

        Raises UserError if any file of the folder does not match the folder's sums.
        """
        sums = checked_sums(self.folder)
        names = sorted(path.name for path in self.files)
        if len(names) == 1:
            return sums[names[0]]
        lines = "".join(f"{sums[name]}  {name}\n" for name in names)
        return hashlib.sha256(lines.encode()).hexdigest()

    def _stored(self, name: str) -> Stored:
        if name not in self._holder:
            raise UserError(f"{self.path}: holds no tensor {name}; its config.json is of another model")
        return self._holder[name].tensors[name]
