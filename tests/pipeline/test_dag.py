"""The DAG in dvc.yaml against the code: deps are the packages that are reached, params the sections that are read."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROLLING_TASK, ROOT, TINY_PARAMS, Finished, changed_params, write_params
from imports import code_deps
from repository import ALL, Repository
from ruamel.yaml import YAML

from stages.lib.plumbing.params import Params, Prune, Recover

DAG = YAML(typ="safe", pure=True).load((ROOT / "dvc.yaml").read_text())["stages"]
ITEMS = ("model", "distilled", "text", "reviews", "documents")
VARIANTS = TINY_PARAMS["compare"]["variants"]
MATRIX: dict[str, list[list[str]]] = {
    **{stage: [["original"], ["pruned"]] for stage in ("classify", "summarize", "measure")},
    **{stage: [[variant] for variant in VARIANTS] for stage in ("recover-others", "compare", "measure-others")},
    "frontier": [["wanda", "0.3"]],
    "harness": [["lines", "original"], ["lines", "pruned"]],
    "measure-harness": [["original"], ["pruned"]],
}


def module_of(name: str) -> str:
    """The script of a stage."""
    return "measure" if name == "measure-others" else name.replace("-", "_")


def test_the_stages_are_those_of_the_pipeline() -> None:
    assert list(DAG) == [
        *("download", "baseline-ppl", "prune", "recover", "post-ppl", "classify", "summarize", "measure"),
        *("shrink", "recover-others", "compare", "measure-others", "sensitivity", "frontier"),
        *("harness", "measure-harness", "report"),
    ]
    recipes = {"original": "data/original", "pruned": "data/recovered/pruned"}
    assert DAG["classify"]["foreach"] == DAG["summarize"]["foreach"] == recipes


def test_a_page_shows_the_pipeline() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 320
    assert (ROOT / "dvc.lock").stat().st_size < 90 * 1024  # every dvc command parses it


@pytest.mark.parametrize("name", DAG)
def test_code_deps_are_what_the_stage_reaches(name: str) -> None:
    deps = DAG[name].get("do", DAG[name])["deps"]
    code = [dep for dep in deps if dep.startswith("stages/")]
    assert len(code) == len(set(code))
    assert set(code) == code_deps(ROOT / "stages" / f"{module_of(name)}.py")


@pytest.mark.parametrize("name", DAG)
def test_results_are_in_git_only_where_no_model_runs(name: str) -> None:
    stage = DAG[name].get("do", DAG[name])
    results = [*stage.get("outs", []), *stage.get("metrics", []), *stage.get("plots", [])]
    uncached = [result for result in results if isinstance(result, dict) and "cache" in next(iter(result.values()))]
    assert bool(uncached) == (name in ("measure", "measure-others", "measure-harness", "report"))


def listed_params() -> Iterator[tuple[str, list[str], set[str]]]:
    """(stage, arguments, sections of params.yaml) of every stage that DVC makes of dvc.yaml, in order."""
    for name, stage in DAG.items():
        if name == "download":
            for item in ITEMS:
                yield name, [item], {item, stage["foreach"][item]["also"]}
        else:
            for arguments in MATRIX.get(name, [[]]):
                yield name, arguments, {key.partition(".")[0] for key in stage.get("do", stage)["params"]}


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
    tasks = {"models": ["original", "pruned"], "tasks": ["lines"], "path": "mine/tasks"}
    (project / "mine" / "tasks").mkdir()
    (project / "mine" / "tasks" / "lines.yaml").write_text(ROLLING_TASK)
    changes = {"prune.method": "wanda", "recover.steps": 1}  # the defaults need less
    write_params(project, changed_params(changes | {f"harness.{key}": value for key, value in tasks.items()}))
    for name, arguments, listed in listed_params():
        read.clear()
        finished = run_stage(module_of(name), *arguments)
        assert finished.status == 0, finished.err
        assert read == listed, (name, arguments)


def test_the_frontier_depends_on_every_setting_that_its_points_keep() -> None:
    replaced = {"recover.steps"}
    replaced |= {f"prune.{key}" for key in ("method", "scope", "budget", "update", "shots", "sparsity")}
    sections = {"prune": Prune, "recover": Recover}
    settings = {f"{name}.{key}" for name, section in sections.items() for key in section.model_fields}
    listed = {key for key in DAG["frontier"]["params"] if key.startswith(("prune.", "recover."))}
    assert listed == settings - replaced


EVALUATED = {stage for stage in ALL if stage.startswith(("baseline", "post", "classify", "summarize", "compare"))}
MEASURED = {stage for stage in ALL if stage.startswith("measure")}
DOWNLOADS = {stage for stage in ALL if stage.startswith("download")}
EDITS: dict[str, set[str]] = {
    "stages/lib/plumbing/params_errors.py": set(),
    "stages/lib/plumbing/command.py": set(),
    "stages/lib/plumbing/params.py": set(),
    "stages/lib/reporting/wording.py": {"report"},
    "stages/lib/figures/statistics.py": {*MEASURED, "report"},
    "stages/lib/evaluation/summarization.py": {*EVALUATED, "sensitivity"},
    "stages/lib/pruning/wanda.py": {"prune", "shrink", "sensitivity"},
    "stages/lib/recovery/training.py": {stage for stage in ALL if stage.startswith("recover")},
    "stages/lib/sources/hub.py": DOWNLOADS,
    "stages/lib/weights/module_tree.py": ALL - MEASURED,
    "stages/classify.py": {"classify@original", "classify@pruned"},
}
"""The stages that run after an edit, but for those whose inputs then differ: the table in CONTRIBUTING.md."""


def test_an_edit_runs_the_stages_of_its_package(finished_repository: Repository, tmp_path: Path) -> None:
    repository = finished_repository.copy(tmp_path / "repository")
    for name, stages in EDITS.items():
        path = repository.folder / name
        text = path.read_text()
        path.write_text(text + "\n# An edit.\n")
        assert set(json.loads(repository.dvc("status", "--json"))) == stages, name
        path.write_text(text)


@pytest.mark.parametrize("name", [*DAG, "describe", "export", "pin", "schema", "verify"])
def test_help(name: str, run_stage: Callable[..., Finished]) -> None:
    finished = run_stage(module_of(name), "--help")
    assert finished.status == 0
    assert f"python -m stages.{module_of(name)}" in finished.out
