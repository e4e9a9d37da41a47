"""Chooses the recipes of the study's other models."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import ParamsError
from stages.lib.files.places import DISTILLED
from stages.lib.pruning.selection import select
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.magnitude import MagnitudePruned, weights_in
from stages.lib.recipes.merged import block_groups
from stages.lib.recipes.other_checkpoint import OtherCheckpoint
from stages.lib.recipes.recipe import Recipe, write_recipe
from stages.lib.shrinking.variants import Variant
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.families import family_of, read_config

if TYPE_CHECKING:
    from stages.lib.shrinking.merging import Merger


def check_depth(variants: Sequence[Variant], model: Path) -> None:
    """Raise ParamsError if a variant takes more blocks together than the model has."""
    depth = family_of(model).depth(read_config(model))
    for variant in variants:
        if variant.n > depth:
            raise ParamsError(
                f"params.yaml: compare.variants: got {variant.name!r}, and the model has {depth} blocks; "
                "n is at most that"
            )


def write_variants(
    variants: Sequence[Variant],
    checkpoint: Checkpoint,
    tied_head_sparsity: float,
    merger: "Callable[[], Merger]",
    folder: Path,
) -> None:
    """Write each variant's recipe into a folder of its name.

    `merger` runs calibration text through the model; it is called once, and only if a variant merges blocks.
    """
    gathered = merger() if any(variant.method.startswith("merged") for variant in variants) else None
    for variant in variants:
        (folder / variant.name).mkdir()
        recipe = _recipe(variant, checkpoint, tied_head_sparsity, gathered, folder / variant.name)
        write_recipe(recipe, folder / variant.name)


def _recipe(
    variant: Variant, checkpoint: Checkpoint, tied_head_sparsity: float, merger: "Merger | None", folder: Path
) -> Recipe:
    if variant.method == "distilled":
        return OtherCheckpoint(sha256=Checkpoint(DISTILLED).sha256)
    if variant.method == "pruned-tied-head":
        head = weights_in("tied-head", checkpoint.folder)
        k = round(tied_head_sparsity * sum(map(checkpoint.size, head)))
        return MagnitudePruned.at(checkpoint, "tied-head", select(checkpoint, head, k))
    if variant.method == "compressed":
        depth = family_of(checkpoint.folder).depth(read_config(checkpoint.folder))
        first = [group[0] for group in block_groups(depth, variant.n)]
        return KeptBlocks(base_sha256=checkpoint.sha256, blocks=first)
    assert merger is not None
    return merger.merge(variant.n, variant.method == "merged-anchor", folder)
