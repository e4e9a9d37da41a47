"""The README against what it speaks of: the committed report, the files, the commands."""

import re

import pandas as pd
import pytest
from conftest import ROOT

from stages.lib.plumbing.params import load_params
from stages.lib.reporting.wording import frontier_rows

README = (ROOT / "README.md").read_text(encoding="utf-8")
REPORT = (ROOT / "report" / "report.md").read_text(encoding="utf-8")


def test_the_table_is_the_committed_reports() -> None:
    table = REPORT.split("\n\n")[2]
    assert table.startswith("| | original | pruned | difference | on |")
    assert table in README


def test_all_models_are_the_committed_reports() -> None:
    table = REPORT.split("## All models\n\n")[1].split("\n\n")[0]
    assert table.startswith("|  | parameters | effective | stored, bytes | perplexity")
    assert table in README


def test_the_answer_is_the_committed_reports() -> None:
    assert REPORT.split("\n\n")[1] in README


def test_the_recovered_models_are_those_of_the_kept_run() -> None:
    kept = ROOT / "docs" / "recovered"
    report = (kept / "report" / "report.md").read_text(encoding="utf-8")
    table = report.split("## All models\n\n")[1].split("\n\n")[0]
    assert "| perplexity before recovery ↓ |" in table
    assert table in README
    assert (kept / "params.yaml").read_bytes() == (ROOT / "studies" / "recovered.yaml").read_bytes()


def test_the_frontier_is_that_of_the_kept_run() -> None:
    kept = ROOT / "docs" / "frontier"
    report = (kept / "report" / "report.md").read_text(encoding="utf-8")
    table = report.split("![Perplexity by effective parameters](frontier.svg)\n\n")[1].split("\n\n")[0]
    assert table in README
    assert table.startswith("| sparsity | effective | magnitude ↓ | magnitude, 20 steps of recovery ↓ |")
    params = load_params(kept / "params.yaml")
    assert read_cells(table) == frontier_rows(pd.read_csv(kept / "metrics" / "frontier.csv"))
    others = load_params(ROOT / "studies" / "recovered.yaml")  # whose models are the picture's points
    assert params.model_copy(update={"frontier": others.frontier}) == others


def read_cells(table: str) -> list[list[str]]:
    head, _, *rows = table.splitlines()
    return [line.strip("| ").split(" | ") for line in (head, *rows)]


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


def test_two_commands_set_everything_up() -> None:
    run, tests = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert run.endswith("pip install -r requirements.txt && dvc repro")
    assert tests.endswith("pip install -r requirements-dev.txt && python -m pytest")


def test_the_settings_it_names_exist() -> None:
    params = load_params(ROOT / "params.yaml")
    for key in ("compute.device", "compute.dtype", "perplexity.context", "perplexity.stride", "prune.sparsity"):
        assert key in README
        section, name = key.split(".")
        assert hasattr(getattr(params, section), name)


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-s3.txt",
        "requirements-ssh.txt",
        "requirements-dev.txt",
        "benchmarks/requirements.txt",
    ],
)
def test_every_requirement_is_pinned(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    wanted = [line.split(" #")[0] for line in lines if line and not line.startswith(("#", "-r"))]
    assert wanted
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line) for line in wanted)
