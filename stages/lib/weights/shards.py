"""The safetensors files of a model folder, one or several, mapped into memory."""

import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from stages.lib.files.errors import UserError, out_of_memory

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
"""Lists the files of weights where there are several."""

WEIGHT_DTYPES = ("F32", "F16", "BF16")
"""Of weights that can be pruned, as safetensors names them."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Stored:
    """A tensor in a file."""

    dtype: str
    """As safetensors names it, such as BF16."""
    shape: tuple[int, ...]
    begin: int
    """In bytes, as `end`, after the header."""
    end: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)


class Shard:
    """One safetensors file. Raises UserError if it is missing or damaged."""

    def __init__(self, path: Path, remedy: str) -> None:
        self.path = path
        if not path.is_file():
            raise UserError(f"{path}: not found; {remedy}")
        try:
            # The library checks header, offsets and length before anything is read.
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            if out_of_memory(error):
                raise
            raise UserError(f"{path}: truncated or damaged ({error}); {remedy}") from None
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self.tensors = {
            name: Stored(entry["dtype"], tuple(entry["shape"]), *entry["data_offsets"])
            for name, entry in header.items()
        }
        """By name, in the order of the header."""
        self._content = 8 + length

    def bytes_of(self, name: str) -> Bytes:
        """A tensor's bytes, as a read-only view of the file."""
        stored = self.tensors[name]
        return self._mapped[stored.begin : stored.end]

    @cached_property
    def _mapped(self) -> Bytes:
        if self.path.stat().st_size == self._content:
            return np.empty(0, dtype=np.uint8)  # nothing cannot be mapped
        return np.memmap(self.path, dtype=np.uint8, mode="r", offset=self._content)


def open_shards(folder: Path, remedy: str) -> list[Shard]:
    """A folder's files of weights: `model.safetensors`, or those that the index lists.

    Raises UserError, which ends with the remedy, for a missing file, and for one that is damaged or holds a tensor of
    another one.
    """
    shards = [Shard(folder / name, remedy) for name in weight_files(folder, remedy)]
    holder: dict[str, Shard] = {}
    for shard in shards:
        for name in shard.tensors:
            if name in holder:
                raise UserError(f"{shard.path}: holds {name}, as {holder[name].path.name} does; {remedy}")
            holder[name] = shard
    return shards


def weight_files(folder: Path, remedy: str) -> list[str]:
    """The names of a folder's files of weights, in order. Raises UserError if its index cannot be read."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [WEIGHTS]
    try:
        weight_map = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        names: list[str] = sorted(set(weight_map.values()))
        for name in names:
            if PurePosixPath(name).name != name or "\\" in name:
                raise ValueError(f"{name!r} is not the name of a file in this folder")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / INDEX}: damaged ({error}); {remedy}") from None
    if not names:
        raise UserError(f"{folder / INDEX}: lists no file; {remedy}")
    return names


def write_index(folder: Path) -> None:
    """Write the index of a folder's files of weights, unless `model.safetensors` is the only one."""
    shards = [Shard(path, "write it again") for path in sorted(folder.glob("*.safetensors"))]
    if [shard.path.name for shard in shards] == [WEIGHTS]:
        return
    size = sum(stored.end - stored.begin for shard in shards for stored in shard.tensors.values())
    weight_map = {name: shard.path.name for shard in shards for name in shard.tensors}
    index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")


def same_bytes(first: Bytes, second: Bytes, chunk: int = 1 << 24) -> bool:
    """Whether two arrays are equal, compared in pieces."""
    starts = range(0, first.size, chunk)
    return first.size == second.size and all(
        np.array_equal(first[start : start + chunk], second[start : start + chunk]) for start in starts
    )
