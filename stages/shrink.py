"""Write the recipe of each of the study's other models: those in compare.variants of params.yaml."""

import argparse
from typing import TYPE_CHECKING

from stages.lib.files.places import MODEL, TEXT, VARIANTS
from stages.lib.files.writing import new_folder
from stages.lib.plumbing import command

if TYPE_CHECKING:
    from stages.lib.shrinking.merging import Merger


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.shrinking.shrink import check_depth, write_variants
    from stages.lib.shrinking.variants import parse_variant
    from stages.lib.weights.checkpoint import Checkpoint

    settings, checkpoint = params.compare, Checkpoint(MODEL)
    variants = [parse_variant(name) for name in settings.variants]
    check_depth(variants, MODEL)

    def merger() -> "Merger":
        from stages.lib.corpora.unscored import unscored_documents
        from stages.lib.inference.device import set_up
        from stages.lib.inference.loading import load_original
        from stages.lib.shrinking.merging import Merger

        loaded = load_original(MODEL, set_up(params.compute, params.seed))
        return Merger.gather(loaded, checkpoint, unscored_documents(TEXT), settings.calibration_tokens)

    with new_folder(VARIANTS) as folder:
        write_variants(variants, checkpoint, settings.tied_head_sparsity, merger, folder)


if __name__ == "__main__":
    command.run("shrink", main, argparse.ArgumentParser(prog="python -m stages.shrink", description=__doc__))
