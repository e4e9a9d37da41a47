"""Figures of lm-evaluation-harness, and how many documents flipped between right and wrong.

Two models of equal accuracy may be right on different documents. Flips count those: the share on which one model is
right and the other wrong (Dutta et al., Accuracy is Not All You Need, NeurIPS 2024).
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd

from stages.lib.figures.statistics import wilson
from stages.lib.files.errors import UserError
from stages.lib.files.parquet import read_table, why_absent
from stages.lib.files.places import harness_folder
from stages.lib.files.writing import significant

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Harness

RIGHT = ("acc", "exact_match")
"""The metrics that say of a document whether the model was right, if they are 0 or 1; the first that a task has."""
SHOWN = (*RIGHT, "bits_per_byte")
"""The metrics that the report prefers, one for each task; for any other task, its first one."""
DOCUMENT = ["task", "document", "doc_hash"]
COLUMNS = [
    *("model", "task", "metric", "higher_is_better", "value", "stderr", "n", "lm_eval"),
    *("flips", "flips_low", "flips_high"),
]


class Found(NamedTuple):
    """What the harness found of one model by one task, as the stage `harness` writes it."""

    results: pd.DataFrame
    samples: pd.DataFrame


def read_found(model: str, task: str) -> Found | None:
    """What was found of a model; None if there is no such model. Raises UserError if it cannot be read."""
    folder = harness_folder(model, task)
    results = read_table(folder / "results.parquet")
    return None if why_absent(results) else Found(results, read_table(folder / "samples.parquet"))


def harness_figures(model: str, tasks: Sequence[str]) -> dict[str, dict[str, float]]:
    """By task, its metrics, their standard errors, and the flips against the original; empty if there is no such model.

    A metric of another filter than `none` has the filter in its name, as the harness writes it: `exact_match,strict`.
    What is not a finite number is left out. Raises UserError if the model and the original saw different documents.
    """
    figures: dict[str, dict[str, float]] = {}
    for task in tasks:
        found, original = read_found(model, task), read_found("original", task)
        if found is None or original is None:
            return {}
        figures |= _task_figures(model, task, found, original)
    return figures


def _task_figures(model: str, task: str, found: Found, original: Found) -> dict[str, dict[str, float]]:
    """The figures of one task that was asked for, or of all tasks in it."""
    figures: dict[str, dict[str, float]] = {}
    for name, rows in found.results.groupby("task", sort=False):
        figures[str(name)] = _metrics(rows) | {"examples": int(rows["n"].iloc[0])}
        if model != "original":
            figures[str(name)] |= _flips(model, task, str(name), original.samples, found.samples)
    return figures


def read_harness(settings: "Harness") -> pd.DataFrame:
    """One row per model and task, with the metric that stands for it; none if no model is asked for.

    A group with a figure of its own is one task, any other group as many as it has. Raises as `harness_figures` does.
    """
    rows: list[dict[str, Any]] = []
    originals = {task: read_found("original", task) for task in settings.tasks} if settings.models else {}
    for model in settings.models:
        for task, original in originals.items():
            found = original if model == "original" else read_found(model, task)
            if found is None or original is None:
                continue
            figures = _task_figures(model, task, found, original)
            names = [task] if task in figures else list(figures)
            for name in names:
                chosen = _standing(found.results[found.results["task"] == name])
                rows.append({"model": model, **chosen, **{key: figures[name].get(key) for key in COLUMNS[-3:]}})
    return pd.DataFrame(rows, columns=COLUMNS)


def _metrics(rows: pd.DataFrame) -> dict[str, float]:
    """The metrics of a task, each followed by its standard error."""
    found: dict[str, float] = {}
    for row in rows.to_dict("records"):
        filtered = "" if row["filter"] == "none" else f",{row['filter']}"
        for suffix, value in (("", row["value"]), ("_stderr", row["stderr"])):
            if value is not None and math.isfinite(value):
                found[f"{row['metric']}{suffix}{filtered}"] = significant(value)
    return found


def _standing(rows: pd.DataFrame) -> Mapping[Any, Any]:
    """The row of the metric that the report shows for a task: the one whose flips are counted, if there is one."""
    preferred = [rows[rows["metric"] == metric] for metric in SHOWN]
    chosen: Mapping[Any, Any] = next(found for found in [*preferred, rows] if len(found)).iloc[0].to_dict()
    return chosen


def _flips(model: str, task: str, name: str, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    """The shares of a task's documents that flipped; of all its documents for the task that was asked for itself.

    Empty for a part of a group without documents of its own, and where no metric says right or wrong of a document.
    """
    if name != task or name in set(before["task"]):
        before, after = (samples[samples["task"] == name] for samples in (before, after))
    before, after = _right(before), _right(after)
    if not before[DOCUMENT].equals(after[DOCUMENT]):
        raise UserError(
            f"the task {name} asked {model} and the original about other documents, and flips cannot be counted; "
            "run `dvc repro`"
        )
    documents = len(before)
    if not documents:
        return {}
    lost = int((before["right"] & ~after["right"]).sum())
    gained = int((~before["right"] & after["right"]).sum())
    interval = wilson(lost + gained, documents)
    shares = {
        "flips": (lost + gained) / documents,
        "flips_low": interval.low,
        "flips_high": interval.high,
        "lost": lost / documents,
        "gained": gained / documents,
    }
    return {key: significant(share) for key, share in shares.items()}


def _right(samples: pd.DataFrame) -> pd.DataFrame:
    """Whether the model was right, for each document of the tasks that say so, by the task's first filter."""
    parts = [pd.DataFrame(columns=[*DOCUMENT, "right"])]
    for _, rows in samples.groupby("task", sort=False):
        metric = next((metric for metric in RIGHT if metric in set(rows["metric"])), None)
        found = rows[rows["metric"] == metric]
        if metric and found["value"].isin([0, 1]).all():
            first = found[found["filter"] == found["filter"].iloc[0]]
            parts.append(first[DOCUMENT].assign(right=first["value"] == 1))
    return pd.concat(parts, ignore_index=True).astype({"document": int, "right": bool})
