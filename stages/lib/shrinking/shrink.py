"""Chooses the recipes of the study's other models."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import ParamsError
from stages.lib.files.places import DISTILLED, MODEL
from stages.lib.inference.calibration import Calibration
from stages.lib.pruning.selection import select
from stages.lib.recipes.kept_blocks import KeptBlocks, without_others
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.magnitude import MagnitudePruned, weights_in
from stages.lib.recipes.merged import block_groups
from stages.lib.recipes.other_checkpoint import OtherCheckpoint
from stages.lib.recipes.recipe import Recipe, write_recipe
from stages.lib.shrinking.variants import Variant, parse_variant
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params
    from stages.lib.shrinking.merging import Merger


def write_variants(params: "Params", folder: Path) -> None:
    """Write the recipe of each of `compare.variants`, an empty one if the model cannot be made into it.

    Raises ParamsError if the model has fewer than n blocks.
    """
    settings, checkpoint = params.compare, Checkpoint(MODEL)
    variants = [parse_variant(name) for name in settings.variants]
    depth = checkpoint.structure.depth
    for variant in variants:
        if variant.n > depth:
            raise ParamsError(
                f"params.yaml: compare.variants: got {variant.name!r}, and the model has {depth} blocks; "
                "n is at most that"
            )
    absent = {variant.name: reason for variant in variants if (reason := _impossible(variant, checkpoint))}
    for name, reason in absent.items():
        print(f"{name}: left out. {reason}", file=sys.stderr)
    merged = any(variant.method.startswith("merged") and variant.name not in absent for variant in variants)
    merger = _merger(checkpoint, params) if merged else None
    for variant in variants:
        (folder / variant.name).mkdir()
        if variant.name in absent:
            recipe: Recipe = LeftOut(reason=absent[variant.name])
        else:
            recipe = _recipe(variant, checkpoint, settings.tied_head_sparsity, merger, folder / variant.name)
        write_recipe(recipe, folder / variant.name)


def _impossible(variant: Variant, checkpoint: Checkpoint) -> str:
    """Why the base cannot be made into a variant, in a sentence; empty if it can."""
    structure = checkpoint.structure
    if variant.method.startswith("merged") and structure.unmerged:
        return f"Its feed-forwards cannot be merged: {structure.unmerged}."
    if variant.method == "pruned-tied-head" and not structure.tied:
        return "Its head is not tied to the token embedding."
    if variant.method == "compressed":
        kept = _first_blocks(structure.depth, variant.n)
        return without_others(checkpoint.config, structure, kept)
    return ""


def _merger(checkpoint: Checkpoint, params: "Params") -> "Merger":
    """What is needed to merge blocks; the model itself is no longer in memory afterwards."""
    from stages.lib.shrinking.merging import Merger

    tokens = params.compare.calibration_tokens
    calibration = Calibration(checkpoint, params, tokens, "compare.calibration_tokens")
    return Merger(calibration.loaded, calibration.windows)


def _recipe(
    variant: Variant, checkpoint: Checkpoint, tied_head_sparsity: float, merger: "Merger | None", folder: Path
) -> Recipe:
    if variant.method == "distilled":
        return OtherCheckpoint(sha256=Checkpoint(DISTILLED).sha256)
    if variant.method == "pruned-tied-head":
        head = weights_in("tied-head", checkpoint)
        k = round(tied_head_sparsity * sum(map(checkpoint.size, head)))
        return MagnitudePruned.at(checkpoint, "tied-head", select(checkpoint, head, k))
    if variant.method == "compressed":
        return KeptBlocks(base_sha256=checkpoint.sha256, blocks=_first_blocks(checkpoint.structure.depth, variant.n))
    assert merger is not None
    return merger.merge(variant.n, variant.method == "merged-anchor", folder)


def _first_blocks(depth: int, n: int) -> list[int]:
    return [group[0] for group in block_groups(depth, n)]
