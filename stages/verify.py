"""Check workspace, cache and lock by hashing them again, and print the command that fixes what is wrong."""

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.places import recipe_folder, written_recipe
from stages.lib.plumbing import command

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params
    from stages.lib.reporting.integrity import Finding


def _report(findings: "Iterable[Finding]") -> None:
    """Print the findings and the command that fixes them, and exit; do nothing if there are none."""
    findings = list(findings)
    for finding in findings:
        print(finding.message)
    if findings:
        damaged = " ".join(shlex.quote(str(finding.damaged)) for finding in findings if finding.damaged)
        print("fix it with:", f"rm -rf {damaged} && dvc repro" if damaged else "dvc repro")
        sys.exit(1)


def _folders(params: "Params") -> dict[Path, Path | None]:
    """The recipe of each model, with the metrics of its size."""
    from stages.lib.files.places import metrics_path

    models = ("original", "pruned", *params.compare.variants)
    before: dict[Path, Path | None] = {}
    if params.recover.steps:  # without steps, recipes before and after recovery are copies
        before = {written_recipe(model): None for model in models[1:]}
    return before | {recipe_folder(model): metrics_path("size", model) for model in models}


def main(arguments: argparse.Namespace) -> None:
    params = command.load_params()
    from stages.lib.reporting.integrity import check_cache, check_locks, check_models, check_pruned, check_workspace

    _report(check_locks())
    findings = [*check_cache(), *check_workspace()]
    if not findings:  # a recipe is applied to its base only if both match the lock
        findings = [*check_pruned(written_recipe("pruned"), params.prune), *check_models(_folders(params))]
    _report(findings)
    print("all good: workspace, cache and lock agree, and all weights match their recipes")


if __name__ == "__main__":
    command.run("verify", main, argparse.ArgumentParser(prog="python -m stages.verify", description=__doc__))
