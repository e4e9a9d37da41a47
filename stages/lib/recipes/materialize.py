"""From a base checkpoint and a recipe to config and weights: the one place where recipes are applied."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from stages.lib.recipes.changed import apply_changes
from stages.lib.weights.checkpoint import WEIGHTS, Checkpoint
from stages.lib.files.errors import UserError
from stages.lib.weights.families import family_of, read_config
from stages.lib.recipes.merged import merge, neurons_of, read_permutations
from stages.lib.recipes.recipe import (
    Changed,
    KeptBlocks,
    MergedFeedForward,
    OtherCheckpoint,
    Pruned,
    check_base,
    pruned_masks,
    read_recipe,
    unchanged,
)


@dataclass(frozen=True)
class Materialized:
    """A model without a model class: what its folder would hold."""

    folder: Path
    """Where its tokenizer and everything else that no recipe changes is."""
    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    """By name, a tied tensor once."""
    masks: dict[str, torch.Tensor]
    """By name, True where pruned."""

    def effective_parameters(self) -> int:
        """The non-zero entries of all weights."""
        return sum(int(torch.count_nonzero(weight)) for weight in self.weights.values())

    def counts(self) -> dict[str, int]:
        """The parameters and those that are not zero, under their names in metrics/."""
        total = sum(weight.numel() for weight in self.weights.values())
        return {"total_parameters": total, "effective_parameters": self.effective_parameters()}


def materialize(checkpoint: Checkpoint, folder: Path) -> Materialized:
    """Apply the recipe in `folder` to a base checkpoint, which is hashed once for all its recipes.

    Raises UserError if either is missing or damaged, or the recipe is for another base.
    """
    stored = read_recipe(folder)
    recipe = unchanged(stored)
    if isinstance(recipe, OtherCheckpoint):
        checkpoint = Checkpoint(checkpoint.folder.parent / recipe.folder)
    check_base(recipe, checkpoint)
    base = checkpoint.folder
    config, weights = read_config(base), load_file(base / WEIGHTS)
    masks: dict[str, torch.Tensor] = {}
    if isinstance(recipe, Pruned):
        masks = {name: torch.from_numpy(mask) for name, mask in pruned_masks(recipe, folder, checkpoint)}
        for name, mask in masks.items():
            weights[name].masked_fill_(mask, 0)
    elif isinstance(recipe, KeptBlocks):
        config, weights = _keep(recipe.blocks, base, config, weights)
    elif isinstance(recipe, MergedFeedForward):
        family = family_of(base)
        depth = family.depth(config)
        permutations = read_permutations(folder, recipe, depth, neurons_of(family, weights))
        merged = merge(weights, family, depth, recipe.n, recipe.anchor_only, permutations)
        if merged != recipe.merged_sha256:
            raise UserError(
                f"{folder}: the average is not the recipe's; `python -m stages.verify` tells how to mend it"
            )
    if isinstance(stored, Changed):
        apply_changes(weights, folder, stored.changes_sha256)
    return Materialized(base, config, weights, masks)


def apart(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights as tensors that share no memory, as the averages of merged blocks do."""
    first: dict[int, str] = {}
    for name, weight in weights.items():
        first.setdefault(id(weight), name)
    return {name: weight if first[id(weight)] == name else weight.clone() for name, weight in weights.items()}


def _keep(
    blocks: list[int], base: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Config and weights of the kept blocks only, numbered anew."""
    family = family_of(base)
    depth = family.depth(config)
    if blocks[-1] >= depth:
        raise UserError(f"the recipe keeps block {blocks[-1]}, {base} has {depth}; run `dvc repro`")
    number = {f"{family.block.format(old)}.": f"{family.block.format(new)}." for new, old in enumerate(blocks)}
    gone = tuple(f"{family.block.format(block)}." for block in range(depth) if block not in blocks)
    kept = {}
    for name, weight in weights.items():
        if name.startswith(gone):
            continue
        old = next((prefix for prefix in number if name.startswith(prefix)), None)
        kept[name if old is None else number[old] + name.removeprefix(old)] = weight
    return {**config, family.depth_key: len(blocks)}, kept
