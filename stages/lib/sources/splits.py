"""Splits by document, so that no document is both fitted and scored."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from stages.lib.files.rows import Split
from stages.lib.files.sampling import shuffled

UNSPLIT = "unsplit"

Files = Mapping[str, list[Path]]
"""A source's files by split, or under `UNSPLIT` if it has none."""


def assign_splits(documents: Mapping[str, Iterable[str]], test_share: float, seed: int) -> dict[tuple[str, str], Split]:
    """The split of each (source's split, document): the source's own, or one drawn by `test_share`.

    Of unsplit documents, a share of `test_share`, at least one document, is scored.
    """
    splits: dict[tuple[str, str], Split] = {}
    for given, keys in documents.items():
        if given != UNSPLIT:
            splits |= {(given, key): cast(Split, given) for key in keys}
            continue
        order = shuffled(keys, seed)
        scored = max(1, round(test_share * len(order)))
        splits |= {(given, key): "test" if rank < scored else "train" for rank, key in enumerate(order)}
    return splits
