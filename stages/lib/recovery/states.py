"""The saved states of a training run, so that a killed run resumes from the newest one, to the same bytes."""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
import transformers
from safetensors.torch import load_file, save_file

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import checked_sums, sha256, write_sums
from stages.lib.files.writing import new_folder
from stages.lib.inference.device import Device

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params
    from stages.lib.recipes.recipe import Recipe

KEPT = 2
"""The saved states that are kept, the newest ones: each takes up to three times the size of the model."""

SAVED = 4
"""The largest number of times that a run's state is saved, evenly over its steps or blocks."""

SECONDS_APART = 120
"""The least time between two saved states, and before the first one: a state may take ten seconds to write."""

CODE = ("files", "inference", "recipes", "recovery", "weights")
"""The packages that `recover` runs, as in dvc.yaml: a state that other code saved is not resumed."""

Log: TypeAlias = list[dict[str, float]]
"""Each step's number, loss and learning rate; in a saved state of `blocks` also the number of the block, from 0."""


def state_folder(
    states: Path, model: str, recipe: "Recipe", windows: Sequence[torch.Tensor], device: Device, params: "Params"
) -> Path:
    """Where a run's states are saved: another folder for another model, text, device, number of threads or code."""
    digest = hashlib.sha256(recipe.model_dump_json().encode())
    for setting in (params.recover.model_dump_json(), params.seed, *_machine(device), *_code()):
        digest.update(f" {setting}".encode())
    for window in windows:
        digest.update(window.numpy().tobytes())
    return states / model / digest.hexdigest()[:16]


def _machine(device: Device) -> Iterator[object]:
    """What changes the last digits of a step, though no setting does."""
    yield from (device, torch.get_num_threads(), torch.backends.cpu.get_cpu_capability())
    if device.device.type == "cuda":
        yield torch.cuda.get_device_name(device.device)


def _code() -> Iterator[str]:
    """The libraries' versions, and the hash of each module that a step of training runs."""
    yield from (torch.__version__, transformers.__version__)
    library = Path(__file__).parent.parent
    for package in CODE:
        yield from (sha256(module) for module in sorted((library / package).glob("*.py")))


class SavePoints:
    """Says after which of a run's steps or blocks its state is saved."""

    def __init__(self, parts: int) -> None:
        self._parts = parts
        self._last = time.monotonic()

    def due(self, done: int) -> bool:
        """Whether to save after so many parts; if so, it counts as saved."""
        regular = done % math.ceil(self._parts / SAVED) == 0 or done == self._parts
        if not regular or time.monotonic() - self._last < SECONDS_APART:
            return False
        self._last = time.monotonic()
        return True


def save_state(folder: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, log: Log) -> None:
    """Save weights, optimizer (none between blocks) and log after the last step of the log, in safetensors and JSON."""
    tensors: dict[str, torch.Tensor] = {}
    for number, (name, weight) in enumerate(model.named_parameters()):
        tensors[f"weight {name}"] = weight.data.contiguous()
        kept = optimizer.state.get(weight, {}) if optimizer else {}  # none if it is not trained
        tensors |= {f"optimizer {number} {key}": value.contiguous() for key, value in kept.items()}
    with new_folder(folder / f"step-{len(log)}") as state:
        save_file(tensors, state / "state.safetensors")
        (state / "log.json").write_text(json.dumps(log), encoding="utf-8")
        write_sums(state)
    for old in _newest_first(folder)[KEPT:]:
        shutil.rmtree(old)


def newest_state(folder: Path) -> Path | None:
    """The newest undamaged state in a folder, if there is one."""
    for state in _newest_first(folder):
        with suppress(UserError):
            checked_sums(state)
            return state
    return None


def load_state(state: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> Log:
    """Restore weights and optimizer, in place; the log so far."""
    saved = load_file(state / "state.safetensors")
    for number, (name, weight) in enumerate(model.named_parameters()):
        weight.data.copy_(saved[f"weight {name}"])
        if optimizer and weight.requires_grad:
            optimizer.state[weight] = {
                key: saved[f"optimizer {number} {key}"].to(weight.device) for key in ("step", "exp_avg", "exp_avg_sq")
            }
    log: Log = json.loads((state / "log.json").read_text(encoding="utf-8"))
    return log


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), key=lambda path: -int(path.name.removeprefix("step-")))
