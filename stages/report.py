"""Compare all models: tables, pictures, and what they rest on."""

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.files.errors import UserError
from stages.lib.plumbing.params import Absent, Hub, Local, Params, Pypi, load_params

if TYPE_CHECKING:
    from stages.lib.figures.comparison import Tables
    from stages.lib.reporting.study import Results

MODEL = Path("data/model")
REVIEWS = Path("data/reviews")
DOCUMENTS = Path("data/documents")
PREDICTIONS = Path("data/predictions")
PRUNE_METRICS = Path("metrics/prune.json")
WORK = (
    *("prune", "recover", "perplexity", "classify", "summarize"),
    *("compare", "sensitivity", "frontier", "statistics", "compute"),
)
"""The sections that say what is done, in the report's order."""
FRONTIER = Path("metrics/frontier")
FRONTIER_TABLE = Path("metrics/frontier.csv")
SENSITIVITY = Path("metrics/sensitivity")
SUMMARY = Path("metrics/summary.csv")
DIFFERENCES = Path("metrics/differences.csv")
REPORT = Path("report")
PACKAGES = ("torch", "transformers", "datasets", "evaluate", "rouge-score", "scikit-learn", "pandas", "numpy")


def rests_on(params: Params, base_sha256: str, mask_sha256: str) -> dict[str, str]:
    """The settings, hashes and versions behind the figures."""
    sources = {item: _pins(getattr(params, item)) for item in ("model", "distilled", "text", "reviews", "documents")}
    settings = {section: ", ".join(f"{key} {value!r}" for key, value in getattr(params, section)) for section in WORK}
    return {
        **sources,
        "base sha256": f"`{base_sha256}`",
        "mask sha256": f"`{mask_sha256}`",
        **settings,
        "seed": str(params.seed),
        "packages": ", ".join(f"{package} {version(package)}" for package in PACKAGES),
    }


def _pins(source: Pypi | Hub | Local | Absent) -> str:
    """Where an item comes from, and what pins it."""
    if isinstance(source, Absent):
        return source.reason
    if isinstance(source, Local):
        return f"local {source.path}"
    name = source.file if isinstance(source, Pypi) else f"{source.repo} at {source.revision}"
    digests = [source.sha256] if isinstance(source, Pypi) else source.sha256.values()
    return " ".join([source.source, name, *(f"sha256 `{digest[:12]}…`" for digest in digests)])


def gather(params: Params) -> "tuple[Results, Tables]":
    """Everything that was measured, compared, and the predictions behind it.

    What was measured of models no longer asked for is forgotten.
    """
    import json

    from stages.lib.figures.comparison import compare
    from stages.lib.weights.families import read_config
    from stages.lib.figures.frontier_table import points_of, read_frontier
    from stages.lib.figures.measures import MEASURES
    from stages.lib.reporting.study import Results, forget_others, read_sizes, read_tables, read_unrecovered

    variants = params.compare.variants
    forget_others(variants, PREDICTIONS / "compare", Path("metrics/compare"))
    forget_others(["pruned", *variants], Path("data/recovered"), Path("metrics/recover"))
    forget_others(points_of(params.frontier), FRONTIER)
    tables = read_tables(variants)
    results = Results(
        comparisons=[compare(measure, tables, params.statistics.resamples, params.seed) for measure in MEASURES],
        sizes=read_sizes(variants),
        unrecovered=read_unrecovered(variants),
        frontier=read_frontier(FRONTIER, params.frontier),
        absent={"distilled": params.distilled.reason} if isinstance(params.distilled, Absent) else {},
        sparsity=json.loads(PRUNE_METRICS.read_text(encoding="utf-8"))["sparsity"],
        vocabulary=int(read_config(MODEL)["vocab_size"]),
    )
    return results, tables


def draw(results: "Results", params: Params) -> dict[str, Path]:
    """Draw the pictures; where each is, by its name."""
    from stages.lib import cost_plot, frontier_plot, sensitivity_plot
    from stages.lib.files.writing import new_file

    pictures = {name: REPORT / f"{name}.svg" for name in ("cost", "frontier", "sensitivity")}
    with new_file(pictures["cost"]) as temporary:
        cost_plot.draw(results.comparisons, results.vocabulary, temporary)
    with new_file(pictures["frontier"]) as temporary:
        frontier_plot.draw(results.frontier, results.by_key["perplexity"], results.sizes, temporary)
    with new_file(pictures["sensitivity"]) as temporary:
        sensitivity_plot.draw(SENSITIVITY, params.sensitivity.alone, temporary)
    return pictures


def write_page(
    results: "Results", tables: "Tables", pictures: dict[str, Path], pins: dict[str, str], params: Params
) -> None:
    """Write what a person would send to a colleague; it has this machine's times, so neither Git nor DVC keeps it."""
    from stages.lib.files.writing import new_file
    from stages.lib.corpora.rows import read_rows
    from stages.lib.reporting.example_changes import flipped_reviews, summary_pairs
    from stages.lib.reporting.page import Run, describe_machine, read_times, render

    original, pruned = tables["original"], tables["pruned"]
    flips = flipped_reviews(read_rows(REVIEWS), original["classify"], pruned["classify"], params.reviews.classes)
    pairs = summary_pairs(read_rows(DOCUMENTS), original["summarize"], pruned["summarize"])
    run = Run(pins, describe_machine(), read_times(command.TIMES))
    with new_file(REPORT / "index.html") as temporary:
        temporary.write_text(render(results, flips, pairs, pictures, run), encoding="utf-8")


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from stages.lib.files.writing import new_file
    from stages.lib.reporting.markdown_report import render
    from stages.lib.recipes.recipe import Pruned, read_recipe, recipe_folder, unchanged
    from stages.lib.reporting.study import differences, summary

    recipe = unchanged(read_recipe(recipe_folder("pruned")))
    if not isinstance(recipe, Pruned):
        raise UserError(f"{recipe_folder('pruned')}: holds the recipe of another model; run `dvc repro prune`")
    results, measured = gather(params)
    compared = differences(results.comparisons)
    tables = {SUMMARY: summary(results), DIFFERENCES: compared, FRONTIER_TABLE: results.frontier}
    for path, table in tables.items():
        with new_file(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    pins = rests_on(params, recipe.base_sha256, recipe.mask_sha256)
    write_page(results, measured, draw(results, params), pins, params)
    text = render(results, pins)
    with new_file(REPORT / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    command.run("report", main, argparse.ArgumentParser(prog="python -m stages.report", description=__doc__))
