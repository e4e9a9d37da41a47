"""Random: the seed decides; the control that any method has to beat."""

from stages.lib.pruning.method import Method

RANDOM = Method(
    name="random",
    scopes=("layer", "row"),
    summary="Pruned at random: weights drawn by the seed",
    source="a control, without a paper",
)
