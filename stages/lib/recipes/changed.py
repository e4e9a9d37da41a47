"""What weights changed by, at one byte each: of what SparseGPT or training made of a compressed model.

What is zero before stays zero and takes no space. Each row's largest change is 127 steps of int8, so
a change is kept to 0.4 % of its row's largest; vectors (norms, biases) are few and stored as they are.
Adding a change to a weight is one rounding for each, in float32, so it is the same on every machine.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.lib.files.writing import sha256
from stages.lib.files.errors import UserError
from stages.lib.recipes.recipe import CHANGES

_SCALE = ".scale"
_STEPS = 127

Weights = Mapping[str, torch.Tensor]


def write_changes(before: Weights, after: Weights, folder: Path) -> str:
    """Write what weights changed by into a folder; the file's SHA-256.

    Tensors that did not change are left out.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, old in before.items():
        new = after[name].to("cpu")
        if torch.equal(old, new):
            continue
        if old.ndim == 1:
            stored[name] = new.clone()
            continue
        kept = old != 0
        change = (new.float() - old.float()).masked_fill_(~kept, 0)
        scale = change.abs().amax(dim=1).div_(_STEPS)
        steps = change.div_(torch.where(scale == 0, 1, scale)[:, None]).round_().to(torch.int8)
        stored[name], stored[name + _SCALE] = steps[kept], scale
    save_file(stored, folder / CHANGES)
    return sha256(folder / CHANGES)


def apply_changes(weights: dict[str, torch.Tensor], folder: Path, digest: str) -> None:
    """Replace each weight that `write_changes` stored a change of.

    Raises UserError if the file is not of that SHA-256, or does not fit the weights.
    """
    path = folder / CHANGES
    damaged = UserError(f"{path}: damaged; `python -m stages.verify` tells how to mend it")
    if sha256(path) != digest:
        raise damaged
    try:
        stored = load_file(path)
        for name in (name for name in stored if not name.endswith(_SCALE)):
            weight = weights[name]  # merged blocks share one, so it is not changed in place
            weights[name] = stored[name] if weight.ndim == 1 else _changed(weight, stored[name], stored[name + _SCALE])
    except (SafetensorError, KeyError, RuntimeError):
        raise damaged from None


def _changed(weight: torch.Tensor, steps: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    change = torch.zeros(weight.shape)
    change[weight != 0] = steps.float()
    return change.mul_(scale[:, None]).add_(weight.float()).to(weight.dtype)
