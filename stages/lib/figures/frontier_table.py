"""The frontier: what each method's perplexity is at each number of effective parameters, in one table."""

import json
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from stages.lib.figures.measures import Estimate
from stages.lib.plumbing.params import Frontier
from stages.lib.figures.statistics import Interval
from stages.lib.reporting.wording import estimated

COLUMNS = (
    *("method", "sparsity", "recovery_steps", "effective_parameters", "stored_bytes"),
    *("perplexity", "perplexity_low", "perplexity_high", "seconds"),
)


def points_of(settings: Frontier) -> list[str]:
    """The names of the points: method and sparsity."""
    return [f"{method}-{sparsity}" for method in settings.methods for sparsity in settings.sparsities]


def read_frontier(folder: Path, settings: Frontier) -> pd.DataFrame:
    """One row a point and number of steps of recovery; no rows where no method is asked for."""
    rows = []
    for name in points_of(settings):
        method, _, sparsity = name.partition("-")
        point = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for kind, measured in point.items():
            steps = settings.steps if kind == "recovered" else 0
            rows.append({"method": method, "sparsity": float(sparsity), "recovery_steps": steps, **measured})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def curve_name(method: str, steps: int) -> str:
    return f"{method}, {steps} steps of recovery" if steps else method


def by_sparsity(frontier: pd.DataFrame) -> list[list[str]]:
    """A table's cells, its head first: a row a sparsity, a column each method before and after recovery."""
    curves = list(dict.fromkeys(zip(frontier["method"], frontier["recovery_steps"], strict=True)))
    points = {(row["sparsity"], row["method"], row["recovery_steps"]): row for row in frontier.to_dict("records")}
    table = [["sparsity", "effective", *(f"{curve_name(*curve)} ↓" for curve in curves)]]
    for sparsity in sorted(set(frontier["sparsity"])):
        row = [points[sparsity, *curve] for curve in curves]
        millions = row[0]["effective_parameters"] / 1e6
        table.append([f"{sparsity:.1%}", f"{millions:.1f}M", *(estimated(_measured(point)) for point in row)])
    return table


def _measured(point: Mapping[Hashable, Any]) -> Estimate:
    low, high = point["perplexity_low"], point["perplexity_high"]
    return Estimate(point["perplexity"], None if math.isnan(low) else Interval(low, high))  # one window has none
