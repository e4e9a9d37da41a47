"""Runs a task of lm-evaluation-harness on a model as it is loaded here, and writes what it found of each document."""

import difflib
import logging
import os
import random
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from stages.lib.files.errors import ParamsError, UserError, out_of_memory, reason_of
from stages.lib.files.parquet import absent_table, write_table
from stages.lib.files.places import MODEL, NO_FILE, harness_folder, recipe_folder
from stages.lib.files.writing import new_folder
from stages.lib.inference.device import set_up
from stages.lib.inference.loading import Loaded, check_causal, ready
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.recipe import materialize, read_recipe
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Harness, Params

PACKAGE = "lm_eval"
RESAMPLES = 1000
"""Behind the standard errors that the harness has no formula for, such as that of F1."""
CLOSEST = 5
"""How many names are suggested for a task that does not exist."""

Tasks = Mapping[str, Any]
"""What the harness loads for a name: the task itself, or the tasks and groups in it."""


def run_task(model: str, task: str, params: "Params") -> None:
    """Run a task on a model, and write the tables `results` and `samples`, or why there is no such model.

    `results`: task (the subtasks of a group, too), version, metric, filter, value, stderr, higher_is_better, n, and
    lm_eval, the harness's version. `samples`: task, document, doc_hash, metric, filter, value; one row per document and
    metric, if it has a single number for a document. Raises ParamsError if there is no such task, UserError if the task
    or the harness cannot be loaded, or the task fails.
    """
    recipe = read_recipe(recipe_folder(model))
    if isinstance(recipe, LeftOut):
        results = samples = absent_table(recipe.reason)
    else:
        tasks = _load_tasks(task, params.harness, params.seed)  # before the model, so that a mistake shows in seconds
        loaded = ready(materialize(Checkpoint(MODEL), recipe_folder(model)), set_up(params.compute, params.seed))
        check_causal(loaded)
        found = _evaluate(loaded, task, tasks, params.harness, params.seed)
        results = pd.DataFrame(_results(found))
        if results.empty:
            raise UserError(f"the task {task} gives no number; check the metrics in its file")
        results = results.astype({"higher_is_better": "boolean"})
        samples = pd.DataFrame(_samples(found), columns=["task", "document", "doc_hash", "metric", "filter", "value"])
    with new_folder(harness_folder(model, task)) as folder:
        write_table(results, folder / "results.parquet")
        write_table(samples, folder / "samples.parquet")


def _load_tasks(task: str, settings: "Harness", seed: int) -> Tasks:
    if find_spec(PACKAGE) is None:
        raise UserError(
            "lm-evaluation-harness is not installed; run `pip install -r requirements-harness.txt`, "
            "or set harness.models to [] in params.yaml"
        )
    from lm_eval.tasks import TaskManager

    for noisy in (PACKAGE, "huggingface_hub"):  # they warn of each setting that is given, and of each new attempt
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    folder = None if Path(settings.path) == NO_FILE else Path(settings.path)
    if folder and not folder.is_dir():
        raise ParamsError(f"harness.path: got {settings.path!r}, takes a folder of task files")
    own = TaskManager(include_path=folder, include_defaults=False)
    # The harness's own thousands of files take seconds to read.
    manager = own if _needs_no_other(own, task) else TaskManager(include_path=folder)
    for name in (task, *(member for member in _members(own, task) if isinstance(member, str))):
        if name not in manager.all_tasks:
            raise ParamsError(_unknown(name, folder, own.all_tasks, manager.all_tasks))
    _check_can_run(task, manager.task_index[task].cfg or {})  # before a metric is fetched that would run code
    try:
        tasks: Tasks = manager.load([task])
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UserError(_why_not_loaded(task, error)) from None
    for name, loaded in tasks["tasks"].items():
        _check_can_run(name, vars(loaded.config))
        if loaded.get_config("num_fewshot") != 0:
            loaded.set_config(key="num_fewshot", value=settings.shots)
        loaded.set_fewshot_seed(seed=seed)
    return tasks


def _needs_no_other(own: Any, name: str) -> bool:
    """Whether a folder of task files has a task, and all tasks that it consists of if it is a group."""
    if name not in own.all_tasks:
        return False
    return all(isinstance(member, str) and _needs_no_other(own, member) for member in _members(own, name))


def _members(own: Any, name: str) -> list[Any]:
    """What a group of a folder of task files consists of: names of tasks, or tasks with other settings."""
    members: list[Any] = own.task_index[name].cfg["task"] if name in own.all_groups else []
    return members


def _unknown(task: str, folder: Path | None, own: list[str], known: list[str]) -> str:
    """What there is in place of a task that does not exist."""
    closest = difflib.get_close_matches(task, known, CLOSEST)
    parts = [f"harness.tasks: there is no task {task!r}"]
    if folder:
        parts.append(f"{folder} has {', '.join(own) or 'none'}")
        parts += [f"{path} cannot be read ({reason})" for path, reason in _unreadable(folder)]
    others = f"{len(known) - len(own):,} names"
    parts.append(f"the harness has {others}, listed by `lm-eval ls tasks`")
    if closest:
        parts.append(f"the closest: {', '.join(closest)}")
    return "; ".join(parts)


def _unreadable(folder: Path) -> Iterator[tuple[Path, str]]:
    """The task files that the harness passes over without a word, and why."""
    from lm_eval.tasks._yaml_loader import load_yaml

    for path in sorted(folder.rglob("*.yaml")):
        try:
            load_yaml(path, resolve_func=False)
        except Exception as error:
            yield path, reason_of(error)


def _why_not_loaded(task: str, error: Exception) -> str:
    """One line for an error in loading a task: in its file, its data or its packages."""
    from datasets.exceptions import DatasetsError

    reason = reason_of(error)
    if isinstance(error, ImportError):
        return f"the task {task} needs a package that is not installed ({reason}); install it with pip"
    if isinstance(error, DatasetsError | OSError):
        return f"the data of the task {task} cannot be loaded ({reason}); check the connection, and the task's files"
    return f"the task {task} cannot be loaded ({type(error).__name__}: {reason}); check its file, or leave it out"


def _check_can_run(name: str, config: Mapping[str, Any]) -> None:
    """Raise UserError for a task that the harness would not start, or that this project has no model for."""
    if config.get("unsafe_code"):
        raise UserError(f"the task {name} runs code that a model has written, which is not done here; leave it out")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise UserError(f"the task {name} shows pictures or plays sounds, and the models here read text; leave it out")


def _evaluate(loaded: Loaded, task: str, tasks: Tasks, settings: "Harness", seed: int) -> Mapping[str, Any]:
    """What the harness finds, as its `EvalResults`."""
    from lm_eval import evaluator

    from stages.lib.evaluation.harness_model import HarnessModel

    os.environ["DISABLE_MULTIPROC"] = "1"  # or it forks as many processes as there are cores for a standard error
    model = HarnessModel(loaded, settings.batch_size)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        found: Mapping[str, Any] = evaluator.evaluate(
            model, tasks, limit=settings.limit or None, bootstrap_iters=RESAMPLES, log_samples=True
        )
    except UserError:
        raise
    except Exception as error:  # a task is a program, which may fail in any way
        if out_of_memory(error):
            raise
        raise UserError(
            f"the task {task} fails on {loaded.structure.model_type} ({type(error).__name__}: {reason_of(error)}); "
            "check its file and data, and harness.shots in params.yaml"
        ) from None
    return found


def _results(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per task or group, metric and filter; the harness's keys are `metric,filter`."""
    for task, values in found["results"].items():
        for key, value in values.items():
            metric, comma, filtered = key.partition(",")
            if not comma or metric.endswith("_stderr") or not _is_number(value):
                continue
            stderr = values.get(f"{metric}_stderr,{filtered}")
            yield {
                "task": task,
                "version": str(found["versions"].get(task, "")),
                "metric": metric,
                "filter": filtered,
                "value": float(value),
                "stderr": float(stderr) if _is_number(stderr) else None,
                "higher_is_better": found["higher_is_better"].get(task, {}).get(metric),
                "n": int(values["sample_len"]),
                "lm_eval": version(PACKAGE),
            }


def _samples(found: Mapping[str, Any]) -> Iterator[tuple[str, int, str, str, str, float]]:
    """One row per document, metric and filter where the metric has a number for a document."""
    for task, documents in found["samples"].items():
        for document in documents:
            for metric in document["metrics"]:
                if _is_number(document[metric]):
                    named = task, int(document["doc_id"]), str(document["doc_hash"])
                    yield *named, metric, str(document["filter"]), float(document[metric])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number)
