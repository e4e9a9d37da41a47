"""The frontier: what each method's perplexity is at each number of effective parameters, in one table."""

import json
import math
from pathlib import Path

import pandas as pd

from stages.lib.measures import Estimate
from stages.lib.params import Frontier
from stages.lib.statistics import Interval
from stages.lib.wording import estimated

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
    curves = list(frontier.groupby(["method", "recovery_steps"], sort=False).groups)
    points = {(point.sparsity, point.method, point.recovery_steps): point for point in frontier.itertuples()}
    table = [["sparsity", "effective", *(f"{curve_name(*curve)} ↓" for curve in curves)]]
    for sparsity in sorted(set(frontier["sparsity"])):
        row = [points[sparsity, *curve] for curve in curves]
        cells = [estimated(_measured(point.perplexity, point.perplexity_low, point.perplexity_high)) for point in row]
        table.append([f"{sparsity:.1%}", f"{row[0].effective_parameters / 1e6:.1f}M", *cells])
    return table


def _measured(value: float, low: float, high: float) -> Estimate:
    return Estimate(value, None if math.isnan(low) else Interval(low, high))  # of a single window there is none
