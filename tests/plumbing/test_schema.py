"""The JSON Schema of params.yaml: it is the typed schema's, takes our params, and refuses what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, TINY_PARAMS, Finished, changed_params
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

SCHEMA = json.loads((ROOT / "docs/params.schema.json").read_text(encoding="utf-8"))
OURS = [ROOT / "params.yaml", *sorted((ROOT / "studies").glob("*.yaml"))]


def mistakes(params: Any) -> list[str]:
    return [".".join(map(str, error.path)) for error in Draft202012Validator(SCHEMA).iter_errors(params)]


def test_it_is_that_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_stage: Callable[..., Finished]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_stage("schema").status == 0
    assert (tmp_path / "docs/params.schema.json").read_bytes() == (ROOT / "docs/params.schema.json").read_bytes()


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_it_takes_our_params(path: Path) -> None:
    assert mistakes(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))) == []


def test_editors_find_it() -> None:
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    (named,) = json.loads((ROOT / ".vscode/settings.json").read_text(encoding="utf-8"))["yaml.schemas"]
    assert first == f"# yaml-language-server: $schema={named}"
    assert (ROOT / named).is_file()


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"prune.sparsity": 1.5}, "prune.sparsity"),
        ({"prune.method": "obc"}, "prune.method"),
        ({"prune.sparsty": 0.3}, "prune"),
        ({"recover.steps": -1}, "recover.steps"),
        ({"seed": "zero"}, "seed"),
        ({"perplexity": None}, ""),
    ],
)
def test_it_refuses_what_is_wrong(changes: dict[str, Any], where: str) -> None:
    assert mistakes(TINY_PARAMS) == []
    assert mistakes(changed_params(changes)) == [where]
