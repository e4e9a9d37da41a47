"""Check workspace, cache and lock by hashing them again, and say what mends what is wrong."""

import argparse
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib import command
from stages.lib.plumbing.params import PARAMS, Params, load_params

if TYPE_CHECKING:
    from stages.lib.reporting.integrity import Finding

MODEL = Path("data/model")
PRUNED = Path("data/pruned")
VARIANTS = Path("data/variants")
METRICS = Path("metrics")
RWLOCK = Path(".dvc/tmp/rwlock")


def _report(findings: "Iterable[Finding]") -> None:
    """Print what was found and what mends it, and leave; do nothing where nothing was found."""
    findings = list(findings)
    for finding in findings:
        print(finding.what)
    if findings:
        damaged = " ".join(shlex.quote(str(finding.damaged)) for finding in findings if finding.damaged)
        print("mend it with:", f"rm -rf {damaged} && dvc repro" if damaged else "dvc repro")
        sys.exit(1)


def _folders(params: Params) -> dict[Path, Path | None]:
    """The recipes of the variants, and what recovery made of all; beside each the metrics that count its weights."""
    from stages.lib.recipes.recipe import recipe_folder

    variants = params.compare.variants
    compared = {variant: METRICS / "compare" / f"{variant}.json" for variant in variants}
    if params.recover.steps == 0:  # what was taken over is what the lock says
        return {VARIANTS / variant: path for variant, path in compared.items()}
    recovered = {"pruned": METRICS / "recover" / "pruned.json", **compared}
    return {
        **{VARIANTS / variant: None for variant in variants},
        **{recipe_folder(model): path for model, path in recovered.items()},
    }


def main(arguments: argparse.Namespace) -> None:
    params = load_params()
    from ruamel.yaml import YAML

    from stages.lib.reporting.integrity import (
        check_cache,
        check_complete,
        check_locks,
        check_models,
        check_pruned,
        check_settings,
        check_workspace,
    )
    from stages.lib.plumbing.lockfile import read_lock
    from stages.lib.plumbing.undo import cache_folder

    _report(check_locks(RWLOCK))
    lock = read_lock()
    settings = YAML(typ="safe", pure=True).load(PARAMS.read_text(encoding="utf-8"))
    cache, here = cache_folder(), Path.cwd()
    cache = cache.relative_to(here) if cache.is_relative_to(here) else cache
    findings = [*check_cache(cache), *check_workspace(lock), *check_settings(lock, settings)]
    if not findings:  # a recipe is held against its base only where both are what the lock says
        findings = [
            *check_complete(),
            *check_pruned(params, MODEL, PRUNED, METRICS / "prune.json"),
            *check_models(_folders(params), MODEL),
        ]
    _report(findings)
    print("all good: workspace, cache and lock agree, and all weights are those of their recipes")


if __name__ == "__main__":
    command.run("verify", main, argparse.ArgumentParser(prog="python -m stages.verify", description=__doc__))
