"""The study's other models by name: the values of `compare.variants` in `params.yaml`.

merged_n          blocks in groups of n consecutive ones; the feed-forwards of a group are aligned and averaged, and
                  every block of the group uses the average
merged_n-anchor   the same, but only the group's first block uses it, as in the published notebook
compressed_n      the first block of each group of n is kept, the others are removed
pruned-tied-head  the smallest weights of the tied head set to zero, no block touched
distilled         the pinned checkpoint under `distilled` in `params.yaml`
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Method: TypeAlias = Literal["merged", "merged-anchor", "compressed", "pruned-tied-head", "distilled"]

NAMES = "merged_n, merged_n-anchor, compressed_n (n a whole number from 1), pruned-tied-head or distilled"


@dataclass(frozen=True)
class Variant:
    """A method, and the size of its groups of blocks (1 if it has none)."""

    name: str
    method: Method
    n: int = 1


_PATTERNS: dict[Method, str] = {
    "merged": "merged_([1-9][0-9]*)",
    "merged-anchor": "merged_([1-9][0-9]*)-anchor",
    "compressed": "compressed_([1-9][0-9]*)",
    "pruned-tied-head": "pruned-tied-head",
    "distilled": "distilled",
}


def parse_variant(name: str) -> Variant:
    """The variant of a name. Raises ValueError for any other name."""
    for method, pattern in _PATTERNS.items():
        if found := re.fullmatch(pattern, name):
            return Variant(name, method, *map(int, found.groups()))
    raise ValueError(f"{name!r} is none of them")
