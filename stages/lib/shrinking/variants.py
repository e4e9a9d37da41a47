"""The study's other models by name: what `compare.variants` in `params.yaml` lists.

merged_n          blocks in groups of n consecutive ones; the feed-forwards of a group are aligned,
                  averaged, and every block of the group uses the average
merged_n-anchor   the same, but only the group's first block uses it, as in the published notebook
compressed_n      the first block of each group of n is kept, the others go
pruned-tied-head  the smallest weights of the tied head zeroed, no block touched
distilled         the pinned checkpoint under `distilled` in `params.yaml`
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

Method: TypeAlias = Literal["merged", "merged-anchor", "compressed", "pruned-tied-head", "distilled"]

NAMES = "merged_n, merged_n-anchor, compressed_n (n a whole number from 1), pruned-tied-head or distilled"


@dataclass(frozen=True)
class Variant:
    """A method, and how many blocks it takes together (1 where it takes none)."""

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
    """The variant of a name. Raises ValueError for a name that is none."""
    for method, pattern in _PATTERNS.items():
        if found := re.fullmatch(pattern, name):
            return Variant(name, method, *map(int, found.groups()))
    raise ValueError(f"{name!r} is none of them")


def block_groups(depth: int, n: int) -> list[range]:
    """The blocks in groups of n consecutive ones; the last group may be shorter."""
    return [range(start, min(start + n, depth)) for start in range(0, depth, n)]
