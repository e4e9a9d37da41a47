"""README and docs against the repository: reports, files, links, commands and settings."""

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT
from imports import PACKAGES
from pydantic import BaseModel
from ruamel.yaml import YAML

from stages.lib.plumbing.params import Params, load_params
from stages.lib.reporting.wording import frontier_rows

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("*/README.md"))]
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return FENCED.sub("", read(page))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


README = read(ROOT / "README.md")
REPORT = read(ROOT / "report" / "report.md")


def models_in(report: str) -> str:
    """A report's table of all models."""
    return report.split("## All models\n\n")[1].split("\n\n", maxsplit=1)[0]


def test_it_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_it_links_every_page() -> None:
    for page in DOCS.glob("*.md"):
        assert f"](docs/{page.name})" in README, page.name


def test_the_table_is_the_committed_reports() -> None:
    table = REPORT.split("\n\n")[2]
    assert table.startswith("| | original | pruned | change | on |")
    assert table in README


def test_the_answer_is_the_committed_reports() -> None:
    assert REPORT.split("\n\n")[1] in README


def test_all_models_are_the_committed_reports() -> None:
    table = models_in(REPORT)
    assert table.startswith("|  | effective | perplexity ↓ | KL divergence ↓ |")
    assert table in read(DOCS / "methods.md")


def test_the_recovered_models_are_those_of_the_kept_run() -> None:
    kept = DOCS / "recovered"
    table = models_in(read(kept / "report" / "report.md"))
    assert "| perplexity before recovery ↓ |" in table
    assert table in read(DOCS / "recovery.md")


def test_the_recovered_study_has_the_settings_of_the_kept_run() -> None:
    kept, study = load_params(DOCS / "recovered" / "params.yaml"), load_params(ROOT / "studies" / "recovered.yaml")
    assert kept.summarize.prompt == "cue"
    assert kept == study.model_copy(update={"summarize": study.summarize.model_copy(update={"prompt": "cue"})})


def test_the_best_study_is_the_kept_run_and_within_three_percent() -> None:
    kept = DOCS / "best"
    assert load_params(kept / "params.yaml") == load_params(ROOT / "studies" / "best.yaml")
    answer = read(kept / "report" / "report.md").split("\n\n")[1]
    assert f"> {answer}\n" in read(kept / "README.md")
    changes = pd.read_csv(kept / "metrics" / "changes.csv", index_col=["model", "reference", "measure"])
    assert changes.loc[("pruned", "original", "perplexity"), "value"] < 1.03


def test_the_frontier_is_that_of_the_kept_run() -> None:
    kept = DOCS / "frontier"
    report = read(kept / "report" / "report.md")
    table = report.split("![Perplexity by effective parameters](frontier.svg)\n\n")[1].split("\n\n")[0]
    assert table.startswith("| method | 20.0%, 113.0M ↓ | 28.5%, 104.0M ↓ |")
    assert table in read(DOCS / "methods.md")
    assert read_cells(table) == frontier_rows(pd.read_csv(kept / "metrics" / "frontier.csv"))
    assert load_params(kept / "params.yaml") == load_params(ROOT / "studies" / "frontier.yaml")


def test_the_frontiers_multiples_are_those_of_the_kept_run() -> None:
    frontier = pd.read_csv(DOCS / "frontier" / "metrics" / "frontier.csv")
    original = json.loads(read(ROOT / "metrics" / "perplexity" / "original.json"))["perplexity"]
    rows = []
    for method, points in frontier.groupby("method", sort=False):
        multiples = [shown(perplexity / original) for perplexity in points["perplexity"]]  # before and after, in turns
        pairs = [" → ".join(pair) for pair in zip(multiples[::2], multiples[1::2], strict=True)]
        stored = [f"{size:,}" for size in points.loc[points["sparsity"] == 0.284674, "stored_bytes"]]
        rows.append([f"`{method}`", *pairs, *stored])
    head = "| method | 20.0% | 28.5% | 50.0% | 70.0% | bytes | bytes after recovery |\n"
    _, _, after = read(DOCS / "methods.md").partition(head)
    assert read_cells(head + after.partition("\n\n")[0])[1:] == rows


def shown(multiple: float) -> str:
    """A multiple of the original's perplexity, with three digits after the point, fewer from 10 on."""
    return f"{multiple:,.{3 if multiple < 10 else 1 if multiple < 100 else 0}f}"


def read_cells(table: str) -> list[list[str]]:
    head, _, *rows = table.splitlines()
    return [line.strip("| ").split(" | ") for line in (head, *rows)]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings have on GitHub."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_two_commands_set_everything_up() -> None:
    run, tests = re.findall(r"^python3 -m venv .*$", README, re.MULTILINE)
    assert run.endswith("pip install -r requirements.txt && dvc repro")
    assert tests.endswith("pip install -r requirements-dev.txt && python -m pytest")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_settings_it_names_exist(page: Path) -> None:
    """Keys in code; those of sections with several schemas are checked in the YAML that is shown."""
    schemas: dict[str, Any] = {name: field.annotation for name, field in Params.model_fields.items()}
    fields = {
        name: schema.model_fields
        for name, schema in schemas.items()
        if isinstance(schema, type) and issubclass(schema, BaseModel)
    }
    code = [*re.findall(r"`([^`\n]+)`", prose(page)), *(text for _, text in FENCED.findall(read(page)))]
    named = re.findall(rf"(?<![\w/.-])({'|'.join(fields)})\.(?!py\b)([a-z_]+)", "\n".join(code))
    assert named or page != ROOT / "README.md"
    for section, key in named:
        assert key in fields[section], f"{section}.{key}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_settings_it_shows_are_valid(page: Path) -> None:
    yaml = YAML(typ="safe", pure=True)
    for text in (text for language, text in FENCED.findall(read(page)) if language == "yaml"):
        params = yaml.load(read(ROOT / "params.yaml"))
        for section, content in yaml.load(text).items():
            params[section] = content if "source" in content else params[section] | content
        Params.model_validate(params)


def test_contributing_lists_the_packages_in_their_order() -> None:
    assert re.findall(r"^\| \[`(\w+)`\]", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE) == PACKAGES


def test_contributing_lists_the_edits_that_are_tested() -> None:
    tested = re.findall(r'^    "(stages/[\w/.]+)": ', read(ROOT / "tests" / "pipeline" / "test_dag.py"), re.MULTILINE)
    assert tested
    assert re.findall(r"^\| `(stages/[\w/.]+)` \|", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE) == tested


@pytest.mark.parametrize(
    "name",
    [
        "requirements.txt",
        "requirements-harness.txt",
        "requirements-s3.txt",
        "requirements-ssh.txt",
        "requirements-dev.txt",
        "benchmarks/requirements.txt",
    ],
)
def test_every_requirement_is_pinned(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()
    wanted = [line.split(" #")[0] for line in lines if line and not line.startswith(("#", "-r"))]
    assert wanted or name == "benchmarks/requirements.txt"  # which needs what the harness does
    assert all(re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+", line) for line in wanted)
