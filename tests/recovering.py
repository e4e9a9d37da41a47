"""What the tests of both kinds of recovery share: settings, a pruned model, and the stages before."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import CPU, Finished, changed_params, load, prose, write_params

from stages.lib.files.errors import UserError
from stages.lib.inference.device import Device
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Recover
from stages.lib.recovery.states import save_state

RunStage = Callable[..., Finished]
DOCUMENTS = [prose(60, seed) for seed in range(20)]


def recover_settings(**changes: Any) -> Recover:
    return Recover(
        **{
            "steps": 6,
            "learning_rate": 1e-3,
            "blocks_learning_rate": 1e-3,
            "tokens_per_step": 32,
            "objective": "distill",
            "weights": "all",
            **changes,
        }
    )


@pytest.fixture(autouse=True)
def save_without_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps of a tiny model take less than the least time between two saved states."""
    monkeypatch.setattr("stages.lib.recovery.states.SECONDS_APART", 0)


def pruned(folder: Path, original: Path, device: Device = CPU) -> Loaded:
    """A model in which a third of each matrix is zero."""
    loaded = load(folder, original, device)
    for weight in loaded.model.parameters():
        if weight.ndim == 2:
            weight.data[weight.abs() < weight.abs().quantile(1 / 3)] = 0
    return loaded


def killed_after(rows: int) -> Callable[..., None]:
    """In place of `save_state`: saves, and ends the run when its log has so many rows."""

    def save_and_end(folder: Path, model: Any, optimizer: Any, log: Any) -> None:
        save_state(folder, model, optimizer, log)
        if len(log) == rows:
            raise UserError("killed")

    return save_and_end


def prepare(project: Path, run_stage: RunStage, **changes: Any) -> None:
    chosen = {"recover.steps": 6, **{key.replace("__", "."): value for key, value in changes.items()}}
    write_params(project, changed_params(chosen))
    for stage in (("download", "model"), ("download", "distilled"), ("download", "text"), ("prune",)):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
