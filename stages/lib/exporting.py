"""Writes a recipe's model as a dense Hugging Face folder, without a model class."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from stages.lib.checkpoint import WEIGHTS
from stages.lib.recipes import pruned_masks, read_recipe


def export(base: Path, recipe: Path, out: Path) -> None:
    """Apply a recipe to its base and write config, tokenizer and weights into the folder `out`.

    Raises UserError if either is missing or damaged, or the recipe is for another base.
    """
    weights = load_file(base / WEIGHTS)
    for name, mask in pruned_masks(read_recipe(recipe), base):
        weights[name].masked_fill_(torch.from_numpy(mask), 0)
    save_file(weights, out / WEIGHTS, metadata={"format": "pt"})
    for file in base.iterdir():
        if file.name != WEIGHTS:
            shutil.copyfile(file, out / file.name)
