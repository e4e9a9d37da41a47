"""Train the pruned model for the steps of `recover` in params.yaml, or none; what is zero stays zero."""

import argparse
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.files.writing import new_file, new_folder, significant, write_json
from stages.lib.plumbing.params import Params, load_params

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from stages.lib.recipes.recipe import Recipe

DATA = Path("data")
MODEL = DATA / "model"
TEXT = DATA / "text"
OUT = DATA / "recovered"
STATES = DATA / "checkpoints"
METRICS = Path("metrics/recover")


def state_folder(model: str, recipe: "Recipe", windows: "Sequence[torch.Tensor]", params: Params) -> Path:
    """Where a run's state is saved: another for other settings, another model or other text."""
    digest = hashlib.sha256(f"{recipe.model_dump_json()} {params.recover.model_dump_json()} {params.seed}".encode())
    for window in windows:
        digest.update(window.numpy().tobytes())
    return STATES / model / digest.hexdigest()[:16]


def train(model: str, params: Params, folder: Path) -> tuple[list[dict[str, float]], dict[str, int]]:
    """Train a model, and write its recipe into a folder; the log of its steps, and what it then counts."""
    from dataclasses import replace

    import torch

    from stages.lib.changed_recipe import changed_recipe
    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.inference.device import set_up
    from stages.lib.corpora.unscored import unscored_documents
    from stages.lib.recipes.materialize import apart, materialize
    from stages.lib.inference.loading import load, ready
    from stages.lib.recipes.recipe import CHANGES, read_recipe, unchanged, write_recipe
    from stages.lib.recovery.training import recover
    from stages.lib.recovery.training_text import training_windows

    device = replace(set_up(params.compute, params.seed), dtype=torch.float32)
    checkpoint, recipe = Checkpoint(MODEL), read_recipe(folder)
    made = materialize(checkpoint, folder)
    student = ready(replace(made, weights=apart(made.weights)), device)
    teacher = load(MODEL, DATA / "original", device) if params.recover.objective == "distill" else None
    windows = training_windows(student, unscored_documents(TEXT), params.recover, params.seed)
    states = state_folder(model, recipe, windows, params)
    log = recover(student, teacher, windows, params.recover, params.seed, states)
    weights = student.model.state_dict()
    trained = {name: weights[name] for name in made.weights}
    (folder / CHANGES).unlink(missing_ok=True)
    write_recipe(changed_recipe(unchanged(recipe), trained, "recovery", checkpoint, folder), folder)
    shutil.rmtree(states.parent)
    return log, materialize(checkpoint, folder).counts()


def recover_model(model: str, recipe: Path) -> None:
    """Train what a recipe gives, and write it as another one; with no steps, take the recipe over as it is."""
    params = load_params()
    settings = params.recover
    log: list[dict[str, float]] = []
    counts: dict[str, int] = {}
    with new_folder(OUT / model) as folder:
        shutil.copytree(recipe, folder, dirs_exist_ok=True)
        if settings.steps:
            log, counts = train(model, params, folder)
    losses = {f"{which}_loss": significant(log[place]["loss"]) for which, place in (("first", 0), ("last", -1)) if log}
    tokens = settings.steps * settings.tokens_per_step
    write_json(METRICS / f"{model}.json", {"steps": settings.steps, "trained_tokens": tokens, **losses, **counts})
    with new_file(METRICS / f"{model}.csv") as temporary:
        rows = [f"{row['step']},{row['loss']:.6g},{row['learning_rate']:.6g}\n" for row in log]
        temporary.write_text("".join(["step,loss,learning_rate\n", *rows]), encoding="utf-8")


def main(arguments: argparse.Namespace) -> None:
    recover_model("pruned", DATA / "pruned")


if __name__ == "__main__":
    command.run("recover", main, argparse.ArgumentParser(prog="python -m stages.recover", description=__doc__))
