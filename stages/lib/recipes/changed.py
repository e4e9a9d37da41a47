"""Another recipe with weights changed by a pruning method, an update or training, at one byte per weight.

Pruned weights stay zero and take no space, and neither do zeros in a matrix that no mask covers. Each row's largest
change is 127 steps of int8, so a change is kept to 0.4 % of its row's largest; vectors (norms, biases) are few and
stored as they are. Adding a change to a weight is a single rounding, in float32, so the result is the same on every
machine. Merged blocks share their tensors before and after: the change of one is stored once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from stages.lib.files.errors import UserError, out_of_memory
from stages.lib.files.hashing import sha256
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.kind import Digest, Kind, Materialized, first_names
from stages.lib.recipes.magnitude import MagnitudePruned
from stages.lib.recipes.merged import MergedFeedForward
from stages.lib.recipes.other_checkpoint import OtherCheckpoint
from stages.lib.recipes.scoped_mask import ScopedMask
from stages.lib.recipes.stored_mask import StoredMask
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    import torch

CHANGES = "changes.safetensors"
RECOVERY = "recovery"
"""The value of `by` if training changed the weights."""

_SCALE = ".scale"
_STEPS = 127

Unchanged: TypeAlias = MagnitudePruned | ScopedMask | StoredMask | KeptBlocks | MergedFeedForward | OtherCheckpoint


class Changed(Kind):
    """The result of another recipe with changes to its weights, which `changes.safetensors` holds."""

    kind: Literal["changed"] = "changed"
    of: Annotated[Unchanged, Field(discriminator="kind")]
    by: str
    """recovery, outputs (prune.update), or the pruning method that changed the weights."""
    changes_sha256: Digest

    @property
    def files(self) -> frozenset[str]:
        return self.of.files | {CHANGES}

    @property
    def unchanged(self) -> Kind:
        return self.of

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        return self.of.base(checkpoint)

    def apply(self, model: Materialized, folder: Path) -> None:
        self.of.apply(model, folder)
        apply_changes(model, folder, self.changes_sha256)


def write_changes(before: Materialized, after: "Mapping[str, torch.Tensor]", folder: Path) -> str:
    """Write how the weights of `after` differ into a folder, without tensors that do not; returns the file's SHA-256.

    Raises ValueError if names that share a tensor in `before` have different weights in `after`.
    """
    import torch
    from safetensors.torch import save_file

    stored: dict[str, torch.Tensor] = {}
    first = first_names(before.weights)
    for name, new in ((name, weight.to("cpu")) for name, weight in after.items()):
        old = before.weights[name]
        if first[name] != name:
            if not torch.equal(new, after[first[name]].to("cpu")):
                raise ValueError(f"{name} and {first[name]} are one tensor, and changed differently")
        elif torch.equal(old, new):
            continue
        elif old.ndim == 1:
            stored[name] = new.clone()
        else:
            kept = _can_change(before, name)
            change = (new.float() - old.float()).masked_fill_(~kept, 0)
            scale = change.abs().amax(dim=-1, keepdim=True).div_(_STEPS)
            steps = change.div_(torch.where(scale == 0, 1, scale)).round_().to(torch.int8)
            stored[name], stored[name + _SCALE] = steps[kept], scale.flatten()
    save_file(stored, folder / CHANGES)
    return sha256(folder / CHANGES)


def apply_changes(model: Materialized, folder: Path, digest: str) -> None:
    """Replace each weight that has a stored change. Raises UserError if the file is damaged or of other weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / CHANGES
    damaged = UserError(f"{path}: damaged; `python -m stages.verify` prints the fix")
    if sha256(path) != digest:
        raise damaged
    first = first_names(model.weights)
    changed: dict[str, torch.Tensor] = {}
    try:
        stored = load_file(path)
        for name in (name for name in stored if not name.endswith(_SCALE)):
            vector = model.weights[name].ndim == 1
            changed[name] = stored[name] if vector else _changed(model, name, stored[name], stored[name + _SCALE])
    except (SafetensorError, KeyError, RuntimeError) as error:
        if out_of_memory(error):
            raise
        raise damaged from None
    for name, one in first.items():
        model.weights[name] = changed.get(one, model.weights[name])


def _changed(model: Materialized, name: str, steps: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
    import torch

    old = model.weights[name]
    change = torch.zeros(old.shape)
    change[_can_change(model, name)] = steps.float()
    return change.mul_(scale.view(*old.shape[:-1], 1)).add_(old.float()).to(old.dtype)


def _can_change(model: Materialized, name: str) -> "torch.Tensor":
    """Where a matrix may change: outside its mask, or where it is not zero if it has none."""
    return ~model.masks[name] if name in model.masks else model.weights[name] != 0
