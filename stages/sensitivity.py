"""Score perplexity by sparsity, and with each kind of matrix and each block pruned alone."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stages.lib import command
from stages.lib.plumbing.params import load_params

MODEL = Path("data/model")
TEXT = Path("data/text")
ORIGINAL = Path("data/original")
OUT = Path("metrics/sensitivity")


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a table that plots are made from, one row a point."""
    import pandas as pd

    from stages.lib.files.writing import new_file

    table = pd.DataFrame(rows)
    with new_file(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.weights.checkpoint import Checkpoint
    from stages.lib.inference.device import set_up
    from stages.lib.corpora.rows import read_rows
    from stages.lib.weights.families import family_of
    from stages.lib.inference.loading import load
    from stages.lib.inference.likelihood import tokenize
    from stages.lib.evaluation.sensitivity import Sensitivity

    settings = params.sensitivity
    loaded = load(MODEL, ORIGINAL, set_up(params.compute, params.seed))
    text = tokenize(loaded.tokenizer, read_rows(TEXT, "test")["text"].tolist()).head(settings.tokens)
    draws = params.statistics.resamples, params.seed
    scored = Sensitivity(loaded, Checkpoint(MODEL), family_of(MODEL), text, params.perplexity, *draws)
    write_csv(OUT / "sparsities.csv", scored.by_sparsity(settings.sparsities))
    write_csv(OUT / "matrices.csv", scored.by_matrix(settings.alone))
    write_csv(OUT / "blocks.csv", scored.by_block(settings.alone))


if __name__ == "__main__":
    command.run("sensitivity", main, argparse.ArgumentParser(prog="python -m stages.sensitivity", description=__doc__))
