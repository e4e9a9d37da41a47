"""Prune GPT-2's shapes with this project and with torch.nn.utils.prune, in one run: time, memory, masks.

python -m benchmarks.prune [--pairs N] [--blocks N]

Both sides start with the weights in memory (as parameters there, as touched pages of the mapped
file here), run alternately in processes of their own, and end when every mask has been made. This
side is timed once more as the stage `prune` does it, with the hashes of base and masks. Extra memory
is the peak of the resident memory over what was resident before. Needs Linux, for that peak.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.utils.prune import L1Unstructured, global_unstructured
from transformers import GPT2Config, GPT2LMHeadModel

from stages.lib.files.hashing import write_sums
from stages.lib.pruning.selection import select
from stages.lib.recipes.choosing import Threshold
from stages.lib.recipes.magnitude import MagnitudePruned, magnitude_masks
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.shards import WEIGHTS

BLOCKS = 12
"""Blocks in GPT-2 small."""
K = 20_439_808
"""Weights to prune, which leaves 104,000,000 of its 124,439,808 parameters."""


@dataclass(frozen=True)
class Cost:
    seconds: float
    extra_mb: float


def measured(work: Callable[[], None]) -> Cost:
    """Time a call, and take the peak of resident memory during it over what was there before."""
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status_kb("VmRSS")
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    return Cost(seconds, (_status_kb("VmHWM") - before) * 1024 / 1e6)


def _status_kb(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def write_model(folder: Path, blocks: int) -> None:
    """GPT-2 small, or its first blocks, with random weights, drawn as its initialization draws them."""
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(n_layer=blocks)).save_pretrained(folder)
    write_sums(folder)


def ours(folder: Path, k: int) -> tuple[Cost, Cost]:
    """The cost of all masks, and of the recipe with its hashes."""
    checkpoint, names = Checkpoint(folder), Checkpoint(folder).structure.prunable
    for name in checkpoint.names:
        for bits in checkpoint.magnitudes(name):
            bits.max()  # the pages are in memory now

    def make_masks() -> None:
        for _ in magnitude_masks(checkpoint, names, select(checkpoint, names, k)):
            pass

    def make_recipe() -> None:
        MagnitudePruned.at(checkpoint, "blocks", select(checkpoint, Checkpoint(folder).structure.prunable, k))

    return measured(make_masks), measured(make_recipe)


class Layer(torch.nn.Module):
    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)


def theirs(folder: Path, k: int, masks: Path) -> Cost:
    """The cost of making all masks; saves them."""
    weights = load_file(folder / WEIGHTS)
    names = Checkpoint(folder).structure.prunable
    layers = [Layer(weights.pop(name).clone()) for name in names]
    weights.clear()

    def prune() -> None:
        global_unstructured([(layer, "weight") for layer in layers], L1Unstructured, amount=k)

    cost = measured(prune)
    np.savez(masks, **{name: layer.weight_mask.numpy() == 0 for name, layer in zip(names, layers, strict=True)})
    return cost


def compare_masks(folder: Path, k: int, torch_masks: Path) -> dict[str, int]:
    """Where the two sides' masks differ: at ties of the threshold's magnitude, and elsewhere."""
    checkpoint = Checkpoint(folder)
    recipe = MagnitudePruned.at(checkpoint, "blocks", select(checkpoint, Checkpoint(folder).structure.prunable, k))
    threshold = Threshold(int(recipe.threshold_bits, 16), recipe.ties)
    bound = np.uint32(threshold.bits).view(np.float32)
    counts = {"pruned_here": 0, "pruned_by_torch": 0, "ties": 0, "differ_at_ties": 0, "differ_elsewhere": 0}
    with np.load(torch_masks) as masks:
        for name, mask in magnitude_masks(checkpoint, Checkpoint(folder).structure.prunable, threshold):
            peer = masks[name].ravel()
            tie = np.abs(checkpoint.raw(name)) == bound
            differ = mask.ravel() != peer
            for key, where in {
                "pruned_here": mask,
                "pruned_by_torch": peer,
                "ties": tie,
                "differ_at_ties": differ & tie,
                "differ_elsewhere": differ & ~tie,
            }.items():
                counts[key] += int(np.count_nonzero(where))
    return counts


def seconds(costs: list[Cost]) -> list[float]:
    return [round(cost.seconds, 2) for cost in costs]


def megabytes(costs: list[Cost]) -> list[int]:
    return [round(cost.extra_mb) for cost in costs]


def ratio(pairs: list[tuple[float, float]]) -> float:
    """The median of the pairs' quotients."""
    return round(statistics.median(first / second for first, second in pairs), 1)


def positive(text: str) -> int:
    """A count on the command line. Raises ValueError, which argparse reports, unless it is 1 or more."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.prune", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=positive, default=3, help="how often each side runs (default: 3)")
    parser.add_argument(
        "--blocks", type=positive, default=BLOCKS, help=f"number of blocks in the model (default: {BLOCKS})"
    )
    arguments = parser.parse_args()
    k = K * arguments.blocks // BLOCKS
    with TemporaryDirectory() as name:
        folder, torch_masks = Path(name) / "model", Path(name) / "masks.npz"
        write_model(folder, arguments.blocks)
        prunable = sum(Checkpoint(folder).size(weight) for weight in Checkpoint(folder).structure.prunable)
        runs = []
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
            for _ in range(arguments.pairs):
                here = pool.submit(ours, folder, k).result()
                runs.append((here, pool.submit(theirs, folder, k, torch_masks).result()))
        masks = compare_masks(folder, k, torch_masks)
    masks_here, recipe_here, torch_there = (
        [run[0][0] for run in runs],
        [run[0][1] for run in runs],
        [run[1] for run in runs],
    )
    result = {
        "pruned": f"{k:,} of {prunable:,}",
        "seconds_masks_here": seconds(masks_here),
        "seconds_recipe_here": seconds(recipe_here),
        "seconds_torch": seconds(torch_there),
        "extra_mb_here": megabytes(recipe_here),
        "extra_mb_torch": megabytes(torch_there),
        "times_faster_masks": ratio([(b.seconds, a.seconds) for a, b in zip(masks_here, torch_there, strict=True)]),
        "times_faster_recipe": ratio([(b.seconds, a.seconds) for a, b in zip(recipe_here, torch_there, strict=True)]),
        "times_less_memory": ratio([(b.extra_mb, a.extra_mb) for a, b in zip(recipe_here, torch_there, strict=True)]),
        **masks,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
