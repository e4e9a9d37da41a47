"""Scopes: the group of weights in which those to prune are the smallest.

global  all matrices of the blocks together
layer   one matrix
row     the weights of one output of a matrix
N:M     M weights beside each other in a row, of which N stay
"""

import re
from typing import Literal, TypeAlias

CalibratedMethod: TypeAlias = Literal["wanda", "sparsegpt"]
"""Those whose scores depend on text."""
PruningMethod: TypeAlias = Literal["magnitude", CalibratedMethod, "random"]

_SCOPES: dict[PruningMethod, tuple[str, ...]] = {  # the first is what `auto` stands for
    "magnitude": ("global", "layer", "row", "N:M"),
    "wanda": ("row", "layer", "N:M"),
    "sparsegpt": ("layer",),
    "random": ("layer", "row"),
}


def pattern_of(scope: str) -> tuple[int, int] | None:
    """N and M of a scope N:M, None for any other. Raises ValueError unless 0 < N < M."""
    found = re.fullmatch("([0-9]+):([0-9]+)", scope)
    if found is None:
        return None
    n, m = int(found[1]), int(found[2])
    if not 0 < n < m:
        raise ValueError("of M weights N stay, so N is from 1 to below M")
    return n, m


def resolve_scope(method: PruningMethod, scope: str) -> str:
    """The scope that a method prunes in. Raises ValueError for one that it lacks."""
    known = _SCOPES[method]
    if scope == "auto":
        return known[0]
    kind = "N:M" if pattern_of(scope) else scope
    if kind not in known:
        raise ValueError(f"{method} has {', '.join(known)}")
    return scope
