"""Draws rows by the seed, in an order that does not depend on the data's own."""

import hashlib
from collections.abc import Iterable
from typing import Literal

import pandas as pd

from stages.lib.files.errors import UserError


def shuffled(keys: Iterable[str], seed: int) -> list[str]:
    """Distinct keys in an order that depends on the seed and the keys alone, not on theirs."""
    return sorted(set(keys), key=lambda key: (hashlib.sha256(f"{seed}:{key}".encode()).digest(), key))


def draw(
    rows: pd.DataFrame, examples: int, seed: int, setting: str, order: Literal["shuffled", "first"] = "shuffled"
) -> pd.DataFrame:
    """The first `examples` rows, or that many drawn by the seed. Raises UserError that names `setting` if too few."""
    if len(rows) < examples:
        raise UserError(f"{setting} is {examples}, and there are {len(rows)}; lower it in params.yaml")
    if order == "first":
        return rows.head(examples)
    keyed = rows.set_index("document", drop=False)
    return keyed.loc[shuffled(keyed.index, seed)[:examples]].reset_index(drop=True)
