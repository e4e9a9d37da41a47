"""Write the recipe of each of the study's other models, those in compare.variants of params.yaml."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.files.writing import new_folder
from stages.lib.files.errors import ParamsError
from stages.lib.plumbing.params import PARAMS, Params, load_params
from stages.lib.shrinking.variants import Variant, parse_variant

if TYPE_CHECKING:
    from stages.lib.shrinking.merging import Aligner
    from stages.lib.weights.checkpoint import Checkpoint

MODEL = Path("data/model")
DISTILLED = Path("data/distilled")
TEXT = Path("data/text")
OUT = Path("data/variants")
RESULTS = (Path("data/predictions/compare"), Path("metrics/compare"))


def check_depth(variants: list[Variant]) -> None:
    """Raise ParamsError if a variant takes more blocks together than the model has."""
    from stages.lib.weights.families import family_of, read_config

    depth = family_of(MODEL).depth(read_config(MODEL))
    for variant in variants:
        if variant.n > depth:
            raise ParamsError(
                f"{PARAMS}: compare.variants: got {variant.name!r}, and the model has {depth} blocks; n is at most that"
            )


def aligner(params: Params, checkpoint: "Checkpoint") -> "Aligner":
    """What matches neurons: gathers the activations of all blocks, once for all variants."""
    from stages.lib.shrinking.merging import Aligner
    from stages.lib.inference.device import set_up
    from stages.lib.corpora.unscored import unscored_documents
    from stages.lib.inference.loading import load

    loaded = load(MODEL, Path("data/original"), set_up(params.compute, params.seed))
    return Aligner.gather(loaded, MODEL, checkpoint, unscored_documents(TEXT), params.compare.calibration_tokens)


def write_variant(
    variant: Variant, params: Params, checkpoint: "Checkpoint", align: "Aligner | None", folder: Path
) -> None:
    """Write one variant's recipe into its folder."""
    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.weights.families import family_of, read_config, tied_head
    from stages.lib.recipes.recipe import KeptBlocks, OtherCheckpoint, prune_by_magnitude, write_recipe
    from stages.lib.shrinking.variants import block_groups

    folder.mkdir()
    if variant.method == "distilled":
        write_recipe(OtherCheckpoint(sha256=Checkpoint(DISTILLED).sha256), folder)
    elif variant.method == "pruned-tied-head":
        k = round(params.compare.tied_head_sparsity * sum(checkpoint.size(name) for name in tied_head(MODEL)))
        write_recipe(prune_by_magnitude(MODEL, checkpoint, k, "tied-head"), folder)
    elif variant.method == "compressed":
        depth = family_of(MODEL).depth(read_config(MODEL))
        first = [group[0] for group in block_groups(depth, variant.n)]
        write_recipe(KeptBlocks(base_sha256=checkpoint.sha256, blocks=first), folder)
    else:
        assert align is not None
        align.write_merged(variant.n, variant.method == "merged-anchor", folder)


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    variants = [parse_variant(name) for name in params.compare.variants]
    check_depth(variants)
    from stages.lib.weights.checkpoint import Checkpoint

    checkpoint = Checkpoint(MODEL)  # hashed once for all
    align = aligner(params, checkpoint) if any(variant.method.startswith("merged") for variant in variants) else None
    with new_folder(OUT) as folder:
        for variant in variants:
            write_variant(variant, params, checkpoint, align, folder / variant.name)
    for results in RESULTS:  # where there is no variant, the report still reads these folders
        results.mkdir(parents=True, exist_ok=True)


if __name__ == "__main__":
    command.run("shrink", main, argparse.ArgumentParser(prog="python -m stages.shrink", description=__doc__))
