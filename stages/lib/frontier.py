"""The frontier: what each method's perplexity is at each number of effective parameters, in one table."""

import json
from pathlib import Path

import pandas as pd

from stages.lib.params import Frontier

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
