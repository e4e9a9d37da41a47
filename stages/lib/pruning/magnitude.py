"""Magnitude: the smallest weights are pruned."""

from stages.lib.pruning.method import Method

MAGNITUDE = Method(
    name="magnitude",
    scopes=("global", "layer", "row", "N:M"),
    summary="Pruned by magnitude: the smallest weights",
    source="Han, Pool, Tran & Dally (2015), Learning both Weights and Connections for Efficient Neural Networks",
)
