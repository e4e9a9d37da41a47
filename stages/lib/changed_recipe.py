"""Makes a recipe of what a compressed model's weights became."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch

from stages.lib.changes import write_changes
from stages.lib.checkpoint import Checkpoint
from stages.lib.materialize import materialize
from stages.lib.recipes import Changed, Original, Shrunk, write_recipe


def changed_recipe(
    recipe: Original | Shrunk,
    weights: Mapping[str, torch.Tensor],
    by: Literal["sparsegpt", "recovery"],
    checkpoint: Checkpoint,
    folder: Path,
) -> Changed:
    """Write what changed of a recipe's weights into its folder, which has all else that it needs.

    `weights` may leave out tensors that did not change.
    """
    assert not isinstance(recipe, Original), "the original is never changed"
    write_recipe(recipe, folder)
    before = materialize(checkpoint, folder).weights
    digest = write_changes({name: before[name] for name in weights}, weights, folder)
    return Changed(of=recipe, by=by, changes_sha256=digest)
