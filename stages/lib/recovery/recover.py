"""Recovers a compressed model: from a recipe, by training, to a recipe with changed weights."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stages.lib.files.errors import UserError
from stages.lib.files.places import LOSSES, MODEL, STATES, TEXT, recipe_folder, written_recipe
from stages.lib.files.writing import new_folder
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.recipe import read_recipe

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params
    from stages.lib.recipes.kind import Kind
    from stages.lib.recovery.states import Log


def recover_model(model: str, params: "Params") -> None:
    """Write a model's recipe after recovery (without steps, a copy) and each step's loss. Raises as `recover` does."""
    log: Log = []
    with new_folder(recipe_folder(model)) as folder:
        shutil.copytree(written_recipe(model), folder, dirs_exist_ok=True)
        if params.recover.steps and not isinstance(read_recipe(folder), LeftOut):
            log = recover(model, params, folder)
        rows = [f"{row['step']:.0f},{row['loss']:.6g},{row['learning_rate']:.6g}\n" for row in log]
        (folder / LOSSES).write_text("".join(["step,loss,learning_rate\n", *rows]), encoding="utf-8")


def recover(model: str, params: "Params", folder: Path) -> "Log":
    """Train the model whose recipe is in `folder`, and replace that recipe; the log of the steps.

    `model` names the run's saved states. Raises UserError if the text is too short, or training diverges.
    """
    from stages.lib.files.rows import unscored_documents
    from stages.lib.inference.device import set_up
    from stages.lib.inference.loading import load_original, ready
    from stages.lib.recipes.changed import CHANGES, RECOVERY, Unchanged
    from stages.lib.recipes.recipe import materialize, write_changed
    from stages.lib.recovery.blocks import train_blocks
    from stages.lib.recovery.states import state_folder
    from stages.lib.recovery.training import train, training_windows
    from stages.lib.weights.checkpoint import Checkpoint

    device = set_up(params.compute, params.seed).for_training()
    checkpoint, recipe = Checkpoint(MODEL), read_recipe(folder)
    made = materialize(checkpoint, folder)
    student = ready(made, device)
    teacher = load_original(checkpoint, device) if params.recover.objective != "lm" else None
    windows = training_windows(student, unscored_documents(TEXT), params.recover, params.seed)
    states = state_folder(STATES, model, recipe, windows, device, params)
    log: Log = []
    if teacher and params.recover.objective.startswith("blocks"):
        last = last_blocks(recipe.unchanged, len(student.blocks), len(teacher.blocks))
        log += train_blocks(student, teacher, windows, params.recover, last, states / "blocks")
    if params.recover.objective != "blocks":
        steps = train(student, teacher, windows, params.recover, states)
        log += [{**row, "step": len(log) + row["step"]} for row in steps]
    trained = {name: student.weights[name] for name in made.weights}
    (folder / CHANGES).unlink(missing_ok=True)
    write_changed(cast(Unchanged, recipe.unchanged), trained, RECOVERY, checkpoint, folder)
    if states.parent.exists():  # a short run saves none, but an earlier one may have
        shutil.rmtree(states.parent)
    return log


def last_blocks(recipe: "Kind", blocks: int, of: int) -> list[int]:
    """By block of a compressed model, the last of the original's blocks that it stands for.

    A block of `compressed_n` also stands for those after it that were left out. The blocks of another checkpoint stand
    for equal parts of the original. Raises UserError if it has more blocks than the original.
    """
    if isinstance(recipe, KeptBlocks):
        return [*(number - 1 for number in recipe.blocks[1:]), of - 1]
    if blocks > of:
        raise UserError(
            f"the model has {blocks} blocks, the original has {of}, so recover.objective blocks cannot compare them; "
            "set it to distill or lm in params.yaml"
        )
    return [(number + 1) * of // blocks - 1 for number in range(blocks)]
