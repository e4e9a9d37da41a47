"""Recovers a model's recipe into its folder, or takes it over as it is if recovery has no steps."""

import shutil
from typing import TYPE_CHECKING

from stages.lib.files.places import LOSSES, recipe_folder, written_recipe
from stages.lib.files.writing import new_file, new_folder

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params
    from stages.lib.recovery.states import Log


def recover_or_take_over(model: str, params: "Params") -> None:
    """Write the recipe that is measured, and the loss of each step. Raises as `recover` does."""
    log: Log = []
    with new_folder(recipe_folder(model)) as folder:
        shutil.copytree(written_recipe(model), folder, dirs_exist_ok=True)
        if params.recover.steps:
            from stages.lib.recovery.recover import recover

            log = recover(model, params, folder)
    with new_file(LOSSES / f"{model}.csv") as temporary:
        rows = [f"{row['step']:.0f},{row['loss']:.6g},{row['learning_rate']:.6g}\n" for row in log]
        temporary.write_text("".join(["step,loss,learning_rate\n", *rows]), encoding="utf-8")
