"""Compare all models: tables, pictures, and what they rest on."""

import argparse
from importlib.metadata import version
from pathlib import Path

from stages.lib import command
from stages.lib.errors import UserError
from stages.lib.params import Absent, Hub, Local, Params, Pypi, load_params

MODEL = Path("data/model")
PRUNE_METRICS = Path("metrics/prune.json")
WORK = (
    *("prune", "recover", "perplexity", "classify", "summarize"),
    *("compare", "sensitivity", "frontier", "statistics", "compute"),
)
"""The sections that say what is done, in the report's order."""
FRONTIER = Path("metrics/frontier")
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


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    import json

    from stages.lib import cost_plot, frontier_plot, sensitivity_plot
    from stages.lib.artifacts import new_file
    from stages.lib.comparison import compare
    from stages.lib.families import read_config
    from stages.lib.frontier import points_of, read_frontier
    from stages.lib.markdown_report import render
    from stages.lib.measures import MEASURES
    from stages.lib.predictions import PREDICTIONS
    from stages.lib.recipes import Pruned, read_recipe, recipe_folder, unchanged
    from stages.lib.study import differences, forget_others, read_sizes, read_tables, read_unrecovered, summary

    recipe = unchanged(read_recipe(recipe_folder("pruned")))
    if not isinstance(recipe, Pruned):
        raise UserError(f"{recipe_folder('pruned')}: holds the recipe of another model; run `dvc repro prune`")
    variants = params.compare.variants
    forget_others(variants, PREDICTIONS / "compare", Path("metrics/compare"))
    forget_others(["pruned", *variants], Path("data/recovered"), Path("metrics/recover"))
    forget_others(points_of(params.frontier), FRONTIER)
    predictions, sizes = read_tables(variants), read_sizes(variants)
    comparisons = [compare(measure, predictions, params.statistics.resamples, params.seed) for measure in MEASURES]
    absent = {"distilled": params.distilled.reason} if isinstance(params.distilled, Absent) else {}
    vocabulary = int(read_config(MODEL)["vocab_size"])
    sparsity = json.loads(PRUNE_METRICS.read_text(encoding="utf-8"))["sparsity"]
    pins = rests_on(params, recipe.base_sha256, recipe.mask_sha256)
    unrecovered = read_unrecovered(variants)
    points = read_frontier(FRONTIER, params.frontier)
    page = render(comparisons, sizes, unrecovered, absent, sparsity, vocabulary, pins)
    tables = {
        SUMMARY: summary(comparisons, sizes, unrecovered, absent),
        DIFFERENCES: differences(comparisons),
        FRONTIER.with_suffix(".csv"): points,
    }
    for path, table in tables.items():
        with new_file(path) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    with new_file(REPORT / "cost.svg") as temporary:
        cost_plot.draw(comparisons, vocabulary, temporary)
    with new_file(REPORT / "sensitivity.svg") as temporary:
        sensitivity_plot.draw(SENSITIVITY, params.sensitivity.alone, temporary)
    with new_file(REPORT / "frontier.svg") as temporary:
        frontier_plot.draw(points, comparisons[0], sizes, temporary)
    with new_file(REPORT / "report.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    command.run("report", main, argparse.ArgumentParser(prog="python -m stages.report", description=__doc__))
