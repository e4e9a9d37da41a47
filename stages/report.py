"""Compare all models: tables, pictures, and a page to read."""

import argparse

from stages.lib.files.errors import UserError
from stages.lib.files.places import METRICS, REPORT, recipe_folder
from stages.lib.plumbing import command


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.files.writing import new_file
    from stages.lib.recipes.masks import Pruned
    from stages.lib.recipes.recipe import read_recipe
    from stages.lib.reporting.markdown_report import render
    from stages.lib.reporting.page import write_page
    from stages.lib.reporting.pictures import draw
    from stages.lib.reporting.provenance import provenance
    from stages.lib.reporting.study import csv_tables, read_results, read_tables

    recipe = read_recipe(recipe_folder("pruned")).unchanged
    if not isinstance(recipe, Pruned):
        raise UserError(f"{recipe_folder('pruned')}: holds the recipe of another model; run `dvc repro prune`")
    tables = read_tables(params.compare.variants)
    results = read_results(params, tables)
    for name, table in csv_tables(results).items():
        with new_file(METRICS / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    pins = provenance(params, recipe.base_sha256, recipe.mask_sha256)
    write_page(results, tables, draw(results, params.sensitivity.alone, REPORT), pins, params, command.TIMES)
    text = render(results, pins)
    with new_file(REPORT / "report.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    command.run("report", main, argparse.ArgumentParser(prog="python -m stages.report", description=__doc__))
