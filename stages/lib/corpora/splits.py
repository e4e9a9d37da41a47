"""Splits by document, so that no document is both fitted and scored."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from stages.lib.corpora.sampling import shuffled
from stages.lib.plumbing.params import Split

UNSPLIT = "unsplit"

Files = Mapping[str, list[Path]]
"""A source's files by split, or under `UNSPLIT` where it has none."""


def assign_splits(documents: Mapping[str, Iterable[str]], test_share: float, seed: int) -> dict[tuple[str, str], Split]:
    """The split of each (source's split, document): the source's own, or else by `test_share`.

    Of unsplit documents, `test_share` of them, at least one, are scored.
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
