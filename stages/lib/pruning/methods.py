"""The pruning methods, and the scopes that they prune in.

A scope is the group of weights in which the smallest scores are pruned:

global  all matrices of the blocks together
layer   one matrix
row     the weights of one output of a matrix
N:M     M consecutive weights of a row, of which N stay
"""

from stages.lib.pruning.kfac import KFAC
from stages.lib.pruning.method import Method
from stages.lib.pruning.sparsegpt import SPARSEGPT
from stages.lib.pruning.surgeon import SURGEON
from stages.lib.pruning.wanda import WANDA
from stages.lib.recipes.choosing import pattern_of

MAGNITUDE = Method(
    name="magnitude",
    scopes=("global", "layer", "row", "N:M"),
    summary="Pruned by magnitude: the smallest weights",
    source="Han, Pool, Tran & Dally (2015), Learning both Weights and Connections for Efficient Neural Networks",
)
RANDOM = Method(
    name="random",
    scopes=("layer", "row"),
    summary="Pruned at random: weights drawn by the seed",
    source="a control, without a paper",
)

METHODS = (MAGNITUDE, WANDA, SPARSEGPT, KFAC, SURGEON, RANDOM)


def method_named(name: str) -> Method:
    """The method of a name. Raises KeyError for any other name."""
    return {method.name: method for method in METHODS}[name]


def resolve_scope(name: str, scope: str) -> str:
    """The scope that a method prunes in. Raises ValueError for a scope that it lacks."""
    known = method_named(name).scopes
    if scope == "auto":
        return known[0]
    kind = "N:M" if pattern_of(scope) else scope
    if kind not in known:
        raise ValueError(f"{name} has {', '.join(known)}")
    return scope
