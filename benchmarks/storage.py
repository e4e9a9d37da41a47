"""What each setting costs on disk, against three ways of storing its weights, in one run.

python -m benchmarks.storage [--sparsities 0.284674 0.5]

Each setting is stored as this project stores it, a recipe over the base, and its weights as dense
safetensors and as zstd over those. Needs `data/model` and `data/text`, which `dvc repro download`
brings. Reading a stored mask is timed against a plain copy of as many bytes.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
from safetensors.torch import save
from tqdm import tqdm

from stages.lib.files.places import MODEL, written_recipe
from stages.lib.plumbing.params import Params, load_params
from stages.lib.pruning.prune import prune
from stages.lib.recipes.recipe import materialize, read_recipe
from stages.lib.recipes.stored_mask import StoredMask
from stages.lib.weights.checkpoint import Checkpoint

LEVEL = 3
"""zstd's own default, here for all sides."""


@dataclass(frozen=True)
class Stored:
    """Bytes of one setting, by the way of storing it."""

    setting: str
    recipe: int
    dense: int
    zstd_dense: int


def zstd_bytes(content: bytes) -> int:
    return len(pa.Codec("zstd", compression_level=LEVEL).compress(content, asbytes=True))


def measure(setting: str, checkpoint: Checkpoint, recipe: Path) -> Stored:
    dense = save(materialize(checkpoint, recipe).weights)
    return Stored(setting, sum(file.stat().st_size for file in recipe.iterdir()), len(dense), zstd_bytes(dense))


def settings(
    checkpoint: Checkpoint, params: Params, sparsities: list[float], folder: Path
) -> Iterator[tuple[str, Path]]:
    """Each method at each sparsity: what it is called, and the folder with its recipe."""
    yield "original", written_recipe("original")
    for sparsity in sparsities:
        for method in ("magnitude", "wanda", "sparsegpt"):
            chosen = {"method": method, "scope": "auto", "budget": "uniform", "sparsity": sparsity}
            changed = params.model_copy(update={"prune": params.prune.model_copy(update=chosen)})
            recipe = folder / f"{method}-{sparsity}"
            recipe.mkdir()
            prune(checkpoint, changed, recipe)
            yield f"{method} {sparsity:.1%}", recipe


def seconds_to_read(checkpoint: Checkpoint, folder: Path) -> tuple[float, float]:
    """To read a stored mask, digest checked, and to copy as many bytes; the least of five turns each."""
    recipe = read_recipe(folder)
    assert isinstance(recipe, StoredMask)
    reads, copies = [], []
    for _ in range(5):
        started = time.perf_counter()
        size = sum(mask.size for _, mask in recipe.checked_masks(checkpoint, folder))
        reads.append(time.perf_counter() - started)
        source = np.ones(size, dtype=np.bool_)
        started = time.perf_counter()
        source.copy()
        copies.append(time.perf_counter() - started)
    return min(reads), min(copies)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storage", description=__doc__.splitlines()[0])
    parser.add_argument("--sparsities", type=float, nargs="+", help="by default that of params.yaml, and 0.5")
    params = load_params()
    sparsities = parser.parse_args().sparsities or [params.prune.sparsity, 0.5]
    checkpoint = Checkpoint(MODEL)
    with TemporaryDirectory() as name:
        made = list(settings(checkpoint, params, sparsities, Path(name)))
        print("| setting | recipe | dense safetensors | zstd over it | dense / recipe | zstd / recipe |")
        print("|---|---:|---:|---:|---:|---:|")
        for setting, recipe in tqdm(made, unit="setting"):
            row = measure(setting, checkpoint, recipe)
            print(
                f"| {setting} | {row.recipe:,} | {row.dense:,} | {row.zstd_dense:,} | "
                f"{row.dense / row.recipe:,.1f} × | {row.zstd_dense / row.recipe:,.1f} × |"
            )
        read, copy = seconds_to_read(checkpoint, next(recipe for _, recipe in made if (recipe / "masks.bin").exists()))
        print(f"\nreading a stored mask: {read:.3f} s, {read / copy:.1f} × a copy of as many bytes")


if __name__ == "__main__":
    main()
