"""Scores one point of the frontier: a method at a sparsity, before and after recovery."""

from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.lib.evaluation.perplexity import score
from stages.lib.files.parquet import write_table
from stages.lib.files.places import FRONTIER, MODEL, TEXT
from stages.lib.files.rows import read_rows
from stages.lib.files.writing import temporary_folder
from stages.lib.inference.device import set_up
from stages.lib.inference.loading import ready
from stages.lib.pruning.prune import prune
from stages.lib.recipes.recipe import materialize, size_of
from stages.lib.recovery.recover import recover
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from stages.lib.plumbing.params import Params


def score_point(method: str, sparsity: str, params: "Params") -> None:
    """Prune by a method in its own scope, recover, and write the scores of the text before and after.

    Columns: method, sparsity, recovery_steps, effective_parameters, stored_bytes, and those of `score`.
    """
    params, checkpoint = _at_point(params, method, float(sparsity)), Checkpoint(MODEL)
    point: dict[str, Any] = {"method": method, "sparsity": params.prune.sparsity}
    name = f"{method}-{sparsity}"  # as in the stage's name
    with temporary_folder(FRONTIER / name) as folder:
        prune(checkpoint, params, folder)
        tables = [_scored(checkpoint, folder, params, point | {"recovery_steps": 0})]
        if params.recover.steps:
            recover(f"frontier-{name}", params, folder)
            tables.append(_scored(checkpoint, folder, params, point | {"recovery_steps": params.recover.steps}))
    write_table(pd.concat(tables, ignore_index=True), FRONTIER / f"{name}.parquet")


def _at_point(params: "Params", method: str, sparsity: float) -> "Params":
    """The settings with another method and sparsity, one shot, and the frontier's steps of recovery."""
    own = {"scope": "auto", "budget": "uniform", "update": "none", "shots": 1}
    return params.model_copy(
        update={
            "prune": params.prune.model_copy(update={"method": method, "sparsity": sparsity, **own}),
            "recover": params.recover.model_copy(update={"steps": params.frontier.steps}),
        }
    )


def _scored(checkpoint: Checkpoint, folder: "Path", params: "Params", point: dict[str, Any]) -> pd.DataFrame:
    made = materialize(checkpoint, folder)
    size = size_of(made, folder)
    loaded = ready(made, set_up(params.compute, params.seed))
    table = score(loaded, read_rows(TEXT, "test")["text"].tolist(), params.perplexity)
    columns = point | {key: size[key] for key in ("effective_parameters", "stored_bytes")}
    return pd.DataFrame({**columns, **table})
