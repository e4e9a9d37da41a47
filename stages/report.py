"""Compare the original with the pruned model: one table, one picture, and what they rest on."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.errors import UserError
from stages.lib.params import Hub, Local, Params, Pypi, load_params

if TYPE_CHECKING:
    from pandas import DataFrame

    from stages.lib.comparison import Comparison

MODEL = Path("data/model")
PRUNED = Path("data/pruned")
PREDICTIONS = Path("data/predictions")
PRUNE_METRICS = Path("metrics/prune.json")
REPORT = Path("report/report.md")
PLOT = Path("report/cost.svg")
PACKAGES = ("torch", "transformers", "datasets", "evaluate", "rouge-score", "scikit-learn", "pandas", "numpy")


def rests_on(params: Params, base_sha256: str, mask_sha256: str) -> dict[str, str]:
    """The settings, hashes and versions behind the figures."""
    sources = {item: _pins(getattr(params, item)) for item in ("model", "text", "reviews", "documents")}
    work = ("prune", "perplexity", "classify", "summarize", "compute")
    settings = {section: ", ".join(f"{key} {value!r}" for key, value in getattr(params, section)) for section in work}
    return {
        **sources,
        "base sha256": f"`{base_sha256}`",
        "mask sha256": f"`{mask_sha256}`",
        **settings,
        "seed": str(params.seed),
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }


def _pins(source: Pypi | Hub | Local) -> str:
    """Where an item comes from, and what pins it."""
    if isinstance(source, Local):
        return f"local {source.path}"
    name = source.file if isinstance(source, Pypi) else f"{source.repo} at {source.revision}"
    digests = [source.sha256] if isinstance(source, Pypi) else source.sha256.values()
    return " ".join([source.source, name, *(f"sha256 `{digest[:12]}…`" for digest in digests)])


def compare(params: Params) -> "list[Comparison]":
    """All metrics of both models, from the predictions that their stages saved."""
    from stages.lib.comparison import compare_accuracy, compare_perplexity, compare_rouge
    from stages.lib.predictions import read_predictions

    def both(original: str, pruned: str) -> "tuple[DataFrame, DataFrame]":
        return read_predictions(PREDICTIONS / original), read_predictions(PREDICTIONS / pruned)

    draws = params.report.resamples, params.seed
    return [
        *compare_perplexity(*both("baseline_ppl.parquet", "post_ppl.parquet"), *draws),
        compare_accuracy(*both("classify/original.parquet", "classify/pruned.parquet"), *draws),
        *compare_rouge(*both("summarize/original.parquet", "summarize/pruned.parquet"), *draws),
    ]


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    import json

    from stages.lib.artifacts import new_file
    from stages.lib.checkpoint import WEIGHTS
    from stages.lib.cost_plot import draw
    from stages.lib.markdown_report import render
    from stages.lib.recipes import RECIPE, MagnitudePruned, read_recipe

    recipe = read_recipe(PRUNED)
    if not isinstance(recipe, MagnitudePruned):
        raise UserError(f"{PRUNED}: holds the recipe of another model; run `dvc repro prune`")
    comparisons = compare(params)
    counts = json.loads(PRUNE_METRICS.read_text(encoding="utf-8"))
    sizes = (MODEL / WEIGHTS).stat().st_size, (PRUNED / RECIPE).stat().st_size
    page = render(comparisons, counts, *sizes, rests_on(params, recipe.base_sha256, recipe.mask_sha256))
    with new_file(PLOT) as temporary:
        draw(comparisons, temporary)
    with new_file(REPORT) as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    command.run("report", main, argparse.ArgumentParser(prog="python -m stages.report", description=__doc__))
