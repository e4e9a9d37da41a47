"""The DAG in dvc.yaml against the code: deps are the imports, params are what is read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY_PARAMS, Finished, changed_params, write_params
from imports import executed_files
from ruamel.yaml import YAML

from stages.lib.plumbing.params import Params

DAG = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
ITEMS = ("model", "distilled", "text", "reviews", "documents")
MATRIX = {
    "classify": ("original", "pruned"),
    "summarize": ("original", "pruned"),
    "recover-others": TINY_PARAMS["compare"]["variants"],
    "frontier": ("wanda-0.3",),
    "compare": TINY_PARAMS["compare"]["variants"],
}


def module_of(name: str) -> Path:
    return ROOT / "stages" / f"{name.replace('-', '_')}.py"


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert list(DAG) == [
        *("download", "baseline-ppl", "prune", "recover", "post-ppl", "classify", "summarize"),
        *("shrink", "recover-others", "compare", "sensitivity", "frontier", "report"),
    ]
    recipes = {"original": "data/original", "pruned": "data/recovered/pruned"}
    assert DAG["classify"]["foreach"] == DAG["summarize"]["foreach"] == recipes
    assert DAG["recover-others"]["matrix"] == DAG["compare"]["matrix"] == {"variant": "${compare.variants}"}


@pytest.mark.parametrize("name", DAG)
def test_code_deps_are_what_the_stage_imports(name: str) -> None:
    deps = DAG[name].get("do", DAG[name])["deps"]
    code = [dep for dep in deps if dep.startswith("stages/")]
    assert len(code) == len(set(code))
    assert set(code) == executed_files(module_of(name))


def listed_params() -> Iterator[tuple[str, str | None, set[str]]]:
    """(stage, argument, sections of params.yaml) of every stage that DVC makes of dvc.yaml, in order."""
    for name, stage in DAG.items():
        if name == "download":
            for item in ITEMS:
                yield name, item, {item, stage["foreach"][item]["also"]}
        else:
            for model in MATRIX.get(name, (None,)):
                yield name, model, {key.partition(".")[0] for key in stage.get("do", stage)["params"]}


def test_each_stage_reads_the_sections_that_are_listed_for_it(
    project: Path, run_stage: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: set[str] = set()
    usual = Params.__getattribute__

    def recording(self: Params, name: str) -> Any:
        if name in Params.model_fields:
            read.add(name)
        return usual(self, name)

    monkeypatch.setattr(Params, "__getattribute__", recording)
    write_params(project, changed_params({"prune.method": "wanda", "recover.steps": 1}))  # the defaults need less
    for name, argument, listed in listed_params():
        read.clear()
        finished = run_stage(name.replace("-", "_"), *([argument] if argument else []))
        assert finished.status == 0, finished.err
        assert read == listed, (name, argument)


@pytest.mark.parametrize("name", [*DAG, "export", "verify"])
def test_help(name: str, run_stage: Callable[..., Finished]) -> None:
    finished = run_stage(name.replace("-", "_"), "--help")
    assert finished.status == 0
    assert f"python -m stages.{name.replace('-', '_')}" in finished.out
