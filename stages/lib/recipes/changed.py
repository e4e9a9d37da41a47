"""Another recipe with weights changed by SparseGPT or by training, at one byte per weight.

Weights that were zero stay zero and take no space. Each row's largest change is 127 steps of int8, so a change is
kept to 0.4 % of its row's largest; vectors (norms, biases) are few and stored as they are. Adding a change to a
weight is a single rounding, in float32, so the result is the same on every machine.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import Field

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import sha256
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.kind import Digest, Kind, Materialized
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
    """recovery, or the pruning method that changed the weights."""
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
        apply_changes(model.weights, folder, self.changes_sha256)


def write_changes(before: "Mapping[str, torch.Tensor]", after: "Mapping[str, torch.Tensor]", folder: Path) -> str:
    """Write how weights changed into a folder, without tensors that did not; returns the file's SHA-256."""
    import torch
    from safetensors.torch import save_file

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


def apply_changes(weights: "dict[str, torch.Tensor]", folder: Path, digest: str) -> None:
    """Replace each weight that has a stored change. Raises UserError if the file is damaged or of other weights."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / CHANGES
    damaged = UserError(f"{path}: damaged; `python -m stages.verify` prints the fix")
    if sha256(path) != digest:
        raise damaged
    try:
        stored = load_file(path)
        for name in (name for name in stored if not name.endswith(_SCALE)):
            weight = weights[name]  # merged blocks share one, so it is not changed in place
            weights[name] = stored[name] if weight.ndim == 1 else _changed(weight, stored[name], stored[name + _SCALE])
    except (SafetensorError, KeyError, RuntimeError):
        raise damaged from None


def _changed(weight: "torch.Tensor", steps: "torch.Tensor", scale: "torch.Tensor") -> "torch.Tensor":
    import torch

    change = torch.zeros(weight.shape)
    change[weight != 0] = steps.float()
    return change.mul_(scale[:, None]).add_(weight.float()).to(weight.dtype)
