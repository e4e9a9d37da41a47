"""The report: its table against the metrics that the stages wrote, and the same bytes each time."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from conftest import Finished

from stages.lib.artifacts import sha256
from stages.lib.comparison import Comparison
from stages.lib.markdown_report import render
from stages.lib.statistics import Interval

RunStage = Callable[..., Finished]


@pytest.fixture
def measured(project: Path, run_stage: RunStage) -> Path:
    for item in ("model", "text", "reviews", "documents"):
        assert run_stage("download", item).status == 0
    for stage in ("baseline_ppl", "prune", "post_ppl"):
        assert run_stage(stage).status == 0
    for model in ("original", "pruned"):
        assert run_stage("classify", model).status == 0
        assert run_stage("summarize", model).status == 0
    return project


def metric(name: str) -> dict[str, float]:
    content: dict[str, float] = json.loads(Path(f"metrics/{name}.json").read_text())
    return content


def cells(report: str, name: str) -> list[str]:
    row = next(line for line in report.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_table_holds_the_metrics(measured: Path, run_stage: RunStage) -> None:
    finished = run_stage("report")
    assert finished.status == 0, finished.err
    report = Path("report/report.md").read_text()
    assert finished.out == report + "\n"
    sources = {
        "perplexity": ("baseline_ppl", "post_ppl", "perplexity"),
        "bits per byte": ("baseline_ppl", "post_ppl", "bits_per_byte"),
        "accuracy": ("classify/original", "classify/pruned", "accuracy"),
        "ROUGE-1": ("summarize/original", "summarize/pruned", "rouge1"),
        "ROUGE-2": ("summarize/original", "summarize/pruned", "rouge2"),
        "ROUGE-L": ("summarize/original", "summarize/pruned", "rougeL"),
    }
    for name, (original, pruned, key) in sources.items():
        row = cells(report, name)
        for cell, source in zip(row[1:3], (original, pruned), strict=True):
            shown = cell.split(" ")[0].replace(",", "")
            places = len(shown.split(".")[1])
            assert float(shown) == pytest.approx(metric(source)[key], abs=0.51 * 10**-places), name
        low, high = (float(part.replace(",", "")) for part in row[3].split("[")[1].rstrip("]").split(", "))
        assert low <= high
    counts = metric("prune")
    assert cells(report, "effective parameters")[2] == f"{counts['effective_parameters']:,}"
    assert f"{metric('baseline_ppl')['tokens']:,} tokens" in cells(report, "perplexity")[4]


def test_it_says_what_it_rests_on(measured: Path, run_stage: RunStage) -> None:
    assert run_stage("report").status == 0
    report = Path("report/report.md").read_text()
    assert sha256(Path("data/model/model.safetensors")) in report
    assert json.loads(Path("data/pruned/recipe.json").read_text())["mask_sha256"] in report
    for fact in ("| prune | sparsity 0.3 |", "| seed | 0 |", "torch 2.", "| model | local mine/model |", "context 64"):
        assert fact in report


def test_the_same_bytes_each_time(measured: Path, run_stage: RunStage) -> None:
    outputs = []
    for _ in range(2):
        assert run_stage("report").status == 0
        outputs.append({path.name: path.read_bytes() for path in Path("report").iterdir()})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {"report.md", "cost.svg"}
    ElementTree.fromstring(outputs[0]["cost.svg"])


def test_missing_predictions_are_one_line(measured: Path, run_stage: RunStage) -> None:
    Path("data/predictions/post_ppl.parquet").unlink()
    finished = run_stage("report")
    assert finished.status == 1
    assert finished.err.splitlines() == [
        "error: report: data/predictions/post_ppl.parquet: not found; `dvc repro` or `dvc checkout` brings it"
    ]


def test_what_it_rests_on_is_escaped() -> None:
    comparison = [
        Comparison(name, "higher", 1.0, Interval(0.5, 1.5), 2.0, None, None, "3 items")
        for name in ("perplexity", "accuracy", "ROUGE-L")
    ]
    counts = {"total_parameters": 10, "zeros_before": 0, "effective_parameters": 8, "sparsity": 0.2}
    report = render(comparison, counts, 1, 1, {"cue": "a | b\nc"})
    assert "| cue | a \\| b c |" in report
    assert "| perplexity ↑ | 1.000 [0.500, 1.500] | 2.000 | +1.000 | 3 items |" in report
