"""The frontier: what each method's perplexity is at each number of effective parameters, in one table."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

COLUMNS = (
    *("method", "sparsity", "recovery_steps", "effective_parameters", "stored_bytes"),
    *("perplexity", "perplexity_low", "perplexity_high", "seconds"),
)


def read_frontier(folder: Path, methods: Sequence[str], sparsities: Sequence[float], steps: int) -> pd.DataFrame:
    """One row a method, sparsity and number of steps of recovery; no rows where no method is asked for."""
    rows = []
    for method in methods:
        for sparsity in sparsities:
            point = json.loads((folder / f"{method}-{sparsity}.json").read_text(encoding="utf-8"))
            for kind, measured in point.items():
                recovered = steps if kind == "recovered" else 0
                rows.append({"method": method, "sparsity": sparsity, "recovery_steps": recovered, **measured})
    return pd.DataFrame(rows, columns=list(COLUMNS))
