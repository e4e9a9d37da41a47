"""All models of a study: what was measured of each, read together, and as two tables for scripts."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stages.lib.files.writing import folder_bytes, significant
from stages.lib.weights.checkpoint import WEIGHTS
from stages.lib.figures.comparison import REFERENCES, Comparison, Tables
from stages.lib.figures.measures import BEFORE_RECOVERY, KINDS, Estimate
from stages.lib.evaluation.predictions import predictions_path, read_predictions
from stages.lib.recipes.recipe import recipe_folder
from stages.lib.figures.statistics import Interval

DATA = Path("data")
METRICS = Path("metrics")


@dataclass(frozen=True)
class Size:
    """How large a model is."""

    total_parameters: int
    effective_parameters: int
    stored_bytes: int
    """Of the recipe; of the weights for the original, over which the others are recipes."""


@dataclass(frozen=True)
class Results:
    """All that a report tells."""

    comparisons: Sequence[Comparison]
    sizes: Mapping[str, Size]
    """By model, the original first."""
    unrecovered: Mapping[str, Estimate]
    """The perplexities before recovery; empty where there was none."""
    frontier: pd.DataFrame
    """A row a method, sparsity and recovery, as `read_frontier` gives them; none where it is off."""
    absent: Mapping[str, str]
    """The models that the study has and this run has not, and why."""
    sparsity: float
    """The pruned model's share of prunable weights."""
    vocabulary: int
    """The number of tokens that a uniform guess chooses from."""

    @property
    def by_key(self) -> dict[str, Comparison]:
        """The comparisons by the key of their measure."""
        return {comparison.measure.key: comparison for comparison in self.comparisons}


def forget_others(names: Sequence[str], *folders: Path) -> None:
    """Remove what was made of models that are no longer asked for; DVC's cache keeps it.

    The folders are watched as a whole, and have to hold what they hold in a fresh clone.
    """
    for folder in folders:
        for path in folder.iterdir():
            if path.name.removesuffix(".json").removesuffix(".csv") not in (*names, ".gitkeep"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def read_tables(variants: Sequence[str]) -> Tables:
    """The predictions of the original, the pruned model and all variants.

    Raises UserError if one is missing or damaged.
    """
    models = ("original", "pruned", *variants)
    return {model: {kind: read_predictions(predictions_path(model, kind)) for kind in KINDS} for model in models}


def read_sizes(variants: Sequence[str]) -> dict[str, Size]:
    """The size of every model, the original first."""
    counts = _read_json(METRICS / "prune.json") | _read_json(METRICS / "recover" / "pruned.json")
    total = counts["total_parameters"]
    sizes = {
        "original": Size(total, total - counts["zeros_before"], (DATA / "model" / WEIGHTS).stat().st_size),
        "pruned": Size(total, counts["effective_parameters"], folder_bytes(recipe_folder("pruned"))),
    }
    for variant in variants:
        measured = _read_json(METRICS / "compare" / f"{variant}.json")
        stored = folder_bytes(recipe_folder(variant))
        sizes[variant] = Size(measured["total_parameters"], measured["effective_parameters"], stored)
    return sizes


def read_unrecovered(variants: Sequence[str]) -> dict[str, Estimate]:
    """The perplexity of each recovered model before its recovery; nothing where recovery is off."""
    files = {"pruned": METRICS / "post_ppl.json"} | {
        variant: METRICS / "compare" / f"{variant}.json" for variant in variants
    }
    found = {}
    for model, path in files.items():
        measured = _read_json(path)
        if BEFORE_RECOVERY in measured:
            low, high = (measured.get(f"{BEFORE_RECOVERY}_{end}") for end in ("low", "high"))
            interval = None if low is None or high is None else Interval(low, high)
            found[model] = Estimate(measured[BEFORE_RECOVERY], interval)
    return found


def summary(results: Results) -> pd.DataFrame:
    """One row a model: sizes, every measure with its interval, and Holm's p against both references."""
    rows: list[dict[str, Any]] = []
    for model, size in results.sizes.items():
        row: dict[str, Any] = {"model": model, **vars(size)}
        for comparison in results.comparisons:
            key, estimate = comparison.measure.key, comparison.estimates[model]
            interval = estimate.interval
            row[key] = significant(estimate.value)
            row[f"{key}_low"] = significant(interval.low) if interval else None
            row[f"{key}_high"] = significant(interval.high) if interval else None
            row[f"{key}_n"] = comparison.n
            for reference in REFERENCES:
                found = comparison.differences.get((model, reference))
                row[f"{key}_p_vs_{reference}"] = significant(found.p_holm, 3) if found else None
        if results.unrecovered:
            row[BEFORE_RECOVERY] = results.unrecovered[model].value if model in results.unrecovered else None
        rows.append(row)
    rows += [{"model": model, "note": reason} for model, reason in results.absent.items()]
    table = pd.DataFrame(rows)
    whole = [*vars(results.sizes["original"]), *(f"{comparison.measure.key}_n" for comparison in results.comparisons)]
    return table.astype(dict.fromkeys(whole, "Int64"))  # a model that is absent has none, which int64 cannot say


def differences(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row for each model, reference and measure: the paired difference and its p-values."""
    return pd.DataFrame(
        [
            {
                "model": model,
                "reference": reference,
                "measure": comparison.measure.key,
                "difference": significant(found.value),
                "low": significant(found.interval.low) if found.interval else None,
                "high": significant(found.interval.high) if found.interval else None,
                "p": significant(found.p, 3),
                "p_holm": significant(found.p_holm, 3),
                "n": comparison.n,
            }
            for comparison in comparisons
            for (model, reference), found in comparison.differences.items()
        ]
    )


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
