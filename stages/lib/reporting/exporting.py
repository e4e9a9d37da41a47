"""Writes a recipe's model as a dense Hugging Face folder, without a model class."""

import json
import shutil
from pathlib import Path

from safetensors.torch import save_file

from stages.lib.files.hashing import SUMS
from stages.lib.recipes.recipe import apart, materialize
from stages.lib.weights.checkpoint import WEIGHTS, Checkpoint


def export(base: Path, recipe: Path, out: Path) -> None:
    """Apply a recipe to its base and write config, tokenizer and weights into the folder `out`.

    Raises UserError if either is missing or damaged, or the recipe is for another base.
    """
    made = materialize(Checkpoint(base), recipe)
    # safetensors refuses tensors that share memory
    save_file(apart(made.weights), out / WEIGHTS, metadata={"format": "pt"})
    ignored = shutil.ignore_patterns(WEIGHTS, "config.json", SUMS)
    shutil.copytree(made.checkpoint.folder, out, ignore=ignored, dirs_exist_ok=True)
    (out / "config.json").write_text(json.dumps(made.config, indent=2) + "\n", encoding="utf-8")
