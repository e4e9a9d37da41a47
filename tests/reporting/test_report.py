"""The report: its table against the metrics that the stages wrote, and the same bytes each time."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from conftest import Finished, changed_params, write_params

from stages.lib.figures.comparison import Comparison, Difference
from stages.lib.figures.definitions import FIGURES, Estimate
from stages.lib.figures.statistics import Interval
from stages.lib.figures.tables import COLUMNS
from stages.lib.files.hashing import sha256
from stages.lib.files.parquet import read_table, write_table
from stages.lib.files.places import REVIEWS, predictions_path
from stages.lib.files.rows import ROWS, read_rows
from stages.lib.reporting.markdown_report import render
from stages.lib.reporting.study import Results, Size

RunStage = Callable[..., Finished]


@pytest.fixture
def measured(project: Path, run_stage: RunStage) -> Path:
    stages = [("download", item) for item in ("model", "distilled", "text", "reviews", "documents")]
    stages += [("baseline_ppl",), ("prune",), ("recover",), ("post_ppl",), ("shrink",), ("sensitivity",)]
    stages += [(stage, model) for stage in ("classify", "summarize") for model in ("original", "pruned")]
    stages += [(stage, variant) for stage in ("recover_others", "compare") for variant in ("merged_2", "compressed_2")]
    stages += [("measure", model) for model in ("original", "pruned", "merged_2", "compressed_2")]
    for stage in stages:
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
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
    for figure in FIGURES:
        name, key = figure.name, figure.key
        row = cells(report, name)
        for cell, source in zip(
            row[1:3], (f"{figure.measure}/{model}" for model in ("original", "pruned")), strict=True
        ):
            shown = cell.split(" ")[0].replace(",", "")
            places = len(shown.split(".")[1])
            assert float(shown) == pytest.approx(metric(source)[key], abs=0.51 * 10**-places), name
        low, high = (float(part.replace(",", "")) for part in row[3].split("[")[1].rstrip("]").split(", "))
        assert low <= high
    counts = metric("size/pruned")
    assert cells(report, "effective parameters")[2] == f"{counts['effective_parameters']:,}"
    assert f"{metric('perplexity/original')['tokens']:,} tokens" in cells(report, "perplexity")[4]


def test_it_lists_the_settings(measured: Path, run_stage: RunStage) -> None:
    assert run_stage("report").status == 0
    report = Path("report/report.md").read_text()
    assert sha256(Path("data/model/model.safetensors")) in report
    assert json.loads(Path("data/pruned/recipe.json").read_text())["mask_sha256"] in report
    for fact in (
        "| prune | method 'magnitude', scope 'auto', budget 'uniform', sparsity 0.3, calibration_tokens 64 |",
        "| seed | 0 |",
        "torch 2.",
        "| model | local mine/model |",
        "context 64",
    ):
        assert fact in report


def test_the_same_bytes_each_time(measured: Path, run_stage: RunStage) -> None:
    outputs = []
    for _ in range(2):
        assert run_stage("report").status == 0
        Path("report/index.html").unlink()  # has this machine's times
        written = [*Path("report").iterdir(), *Path("metrics").rglob("*.csv")]
        outputs.append({path.name: path.read_bytes() for path in written})
    assert outputs[0] == outputs[1]
    assert set(outputs[0]) == {
        *("report.md", "cost.svg", "frontier.svg", "sensitivity.svg"),
        *("summary.csv", "differences.csv", "frontier.csv"),
        *("sparsities.csv", "matrices.csv", "blocks.csv"),
    }
    for picture in ("cost.svg", "frontier.svg", "sensitivity.svg"):
        ElementTree.fromstring(outputs[0][picture])


def test_the_page_shows_the_texts_that_were_scored(measured: Path, run_stage: RunStage) -> None:
    """Also where documents of both splits have the same ids, as with files for each."""
    rows = read_rows(REVIEWS)
    scored = rows[rows["split"] == "test"]
    write_table(pd.concat([scored, scored.assign(split="train", text="not scored")]), REVIEWS / ROWS)
    path = predictions_path("classify", "pruned")
    pruned = read_table(path)
    document = pruned["document"].iloc[0]
    write_table(pruned.assign(predicted=pruned["predicted"].where(pruned["document"] != document, 2)), path)
    write_params(measured, changed_params({"reviews.classes": ["negative", "positive", "neither"]}))
    assert run_stage("report").status == 0
    page = Path("report/index.html").read_text()
    assert html.escape(scored.set_index("document")["text"][document][:100], quote=False) in page
    assert "not scored" not in page


def test_missing_predictions_are_one_line(measured: Path, run_stage: RunStage) -> None:
    Path("data/predictions/perplexity/pruned.parquet").unlink()
    finished = run_stage("report")
    assert finished.status == 1
    assert finished.err.splitlines() == [
        "error: report: data/predictions/perplexity/pruned.parquet: not found; "
        "restore it with `dvc repro` or `dvc checkout`"
    ]


def test_a_missing_variant_is_one_line(measured: Path, run_stage: RunStage) -> None:
    Path("data/predictions/classify/merged_2.parquet").unlink()
    finished = run_stage("report")
    assert finished.status == 1
    assert len(finished.err.splitlines()) == 1
    assert "data/predictions/classify/merged_2.parquet: not found; restore it with `dvc repro`" in finished.err


def test_the_summary_has_a_row_a_model(measured: Path, run_stage: RunStage) -> None:
    """Each figure is the one in the model's own file under metrics/."""
    assert run_stage("report").status == 0
    table = pd.read_csv("metrics/summary.csv").set_index("model")
    assert list(table.index) == ["original", "pruned", "merged_2", "compressed_2", "distilled"]
    compared = 0
    for model in ("original", "pruned", "merged_2", "compressed_2"):
        for measure in ("perplexity", "classify", "summarize", "size"):
            for key, value in metric(f"{measure}/{model}").items():
                if key in table:
                    compared += 1
                    assert table.loc[model, key] == pytest.approx(value, rel=1e-5), (model, key)
    assert compared > 50
    assert table.loc["distilled", "note"] == "There is none, it is a test."
    assert table.loc["distilled"].drop("note").isna().all()
    assert table.loc["original", "stored_bytes"] == Path("data/model/model.safetensors").stat().st_size
    assert table.loc["merged_2", "stored_bytes"] < 1000
    assert pd.isna(table.loc["original", "accuracy_p_vs_original"])
    assert 0 < table.loc["pruned", "accuracy_p_vs_original"] <= 1


def test_the_differences_are_those_of_the_summary(measured: Path, run_stage: RunStage) -> None:
    assert run_stage("report").status == 0
    summary = pd.read_csv("metrics/summary.csv").set_index("model")
    table = pd.read_csv("metrics/differences.csv")
    assert len(table) == 6 * 2 * 3  # figures, references, and all models but the reference
    for row in table.itertuples():
        expected = summary.loc[row.model, row.measure] - summary.loc[row.reference, row.measure]
        scale = abs(summary.loc[row.model, row.measure])
        assert row.difference == pytest.approx(expected, abs=1e-5 * scale + 1e-9)
        assert row.low <= row.high
        assert row.p <= row.p_holm <= 1
        assert summary.loc[row.model, f"{row.measure}_p_vs_{row.reference}"] == row.p_holm


def comparison_of(key: str, **values: float) -> Comparison:
    figure = next(figure for figure in FIGURES if figure.key == key)
    interval = Interval(0.5, 1.5)
    return Comparison(
        figure,
        {model: Estimate(value, interval) for model, value in values.items()},
        {(model, "original"): Difference(1.0, None, 0.001, 0.04) for model in values if model != "original"}
        | {(model, "pruned"): Difference(1.0, None, 0.03, 0.06) for model in values if model != "pruned"},
        3,
        "3 items",
    )


def page(settings: dict[str, str], **values: float) -> str:
    comparisons = [comparison_of(key, **values) for key in ("perplexity", "bits_per_byte", "accuracy", "rougeL")]
    sizes = dict.fromkeys(values, Size(10, 8, 1))
    frontier = pd.DataFrame(columns=list(COLUMNS))
    return render(Results(comparisons, sizes, {}, frontier, {}, {"distilled": "Why | not."}, 0.2, 50), settings)


def test_settings_are_escaped() -> None:
    report = page({"cue": "a | b\nc"}, original=1.0, pruned=2.0)
    assert "| cue | a \\| b c |" in report
    assert "| perplexity ↓ | 1.000 [0.500, 1.500] | 2.000 [0.500, 1.500] | +1.000 | 3 items; p = 0.001 |" in report
    assert "| distilled: not measured. Why \\| not. |" in report


def test_significant_differences_are_marked() -> None:
    report = page({}, original=1.0, pruned=2.0, merged_2=30.0)
    row = next(line for line in report.splitlines() if line.startswith("| merged_2 |"))
    assert row.count("[0.50, 1.50]\\* |") == 4  # p is 0.04 against the original, and 0.06 against the pruned one
    assert "†" not in row
    assert "Holm's method over the 2 models" in report


def test_only_what_is_worse_than_guessing_is_called_so() -> None:
    lost = page({}, original=1.0, pruned=2.0, merged_2=51.0, compressed_2=49.0)
    assert "- merged_2: a perplexity above 50, worse than guessing uniformly among all tokens" in lost
    assert "worse than guessing" not in page({}, original=1.0, pruned=2.0, merged_2=49.0)


def test_it_says_which_merged_model_is_which() -> None:
    assert "merged_n-anchor" in page({}, original=1.0, pruned=2.0, merged_2=3.0)
    assert "merged_n" not in page({}, original=1.0, pruned=2.0, compressed_2=3.0)
