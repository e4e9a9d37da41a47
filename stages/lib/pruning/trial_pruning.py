"""Prunes a part of a loaded model by magnitude, and restores it afterwards, to measure how much that part matters."""

from collections.abc import Sequence

import torch
from safetensors import safe_open

from stages.lib.inference.loading import Loaded
from stages.lib.pruning.selection import select
from stages.lib.recipes.magnitude import magnitude_masks


@torch.no_grad()
def zero_smallest(loaded: Loaded, names: Sequence[str], sparsity: float) -> int:
    """Zero a share of the named tensors together, the smallest by the checkpoint's magnitudes; returns their number."""
    checkpoint = loaded.checkpoint
    k = round(sparsity * sum(checkpoint.size(name) for name in names))
    for name, mask in magnitude_masks(checkpoint, names, select(checkpoint, names, k)):
        weight = loaded.model.get_parameter(name)
        weight.masked_fill_(torch.from_numpy(mask).to(weight.device), 0)
    return k


@torch.no_grad()
def restore(loaded: Loaded, names: Sequence[str]) -> None:
    """Restore the named tensors from the checkpoint."""
    with safe_open(loaded.checkpoint.path, framework="pt") as file:
        for name in names:
            loaded.model.get_parameter(name).copy_(file.get_tensor(name))
