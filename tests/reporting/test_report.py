"""The report: its table against the metrics that the stages wrote, and the same bytes each time."""

import html
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from conftest import HARNESS, ROOT, SENSITIVITY, Finished, changed_params, write_params

from stages.lib.figures.comparison import Change, Comparison
from stages.lib.figures.definitions import FIGURES, Estimate
from stages.lib.figures.statistics import Interval, PValue
from stages.lib.figures.tables import COLUMNS
from stages.lib.files.hashing import sha256
from stages.lib.files.parquet import read_table, write_table
from stages.lib.files.places import REVIEWS, predictions_path
from stages.lib.files.rows import ROWS, read_rows
from stages.lib.reporting.markdown_report import render
from stages.lib.reporting.study import Results, Size
from stages.lib.reporting.wording import harness_caption, harness_rows, p_value

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
            if figure.distance and source.endswith("original"):
                assert cell == "—"
                continue
            shown = cell.split(" ")[0].replace(",", "")
            places = len(shown.split(".")[1])
            assert float(shown) == pytest.approx(metric(source)[key], abs=0.51 * 10**-places), name
        for cell in row[1:4]:
            if "[" in cell:
                low, high = (float(part.replace(",", "")) for part in cell.split("[")[1].rstrip("]").split(", "))
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
        "| prune | method 'magnitude', scope 'auto', budget 'uniform', update 'none', shots 1, sparsity 0.3, "
        "calibration_tokens 64 |",
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
        *("report.md", "cost.svg", "distance.svg", "frontier.svg", "sensitivity.svg"),
        *("summary.csv", "changes.csv", "frontier.csv"),
        *("sparsities.csv", "matrices.csv", "blocks.csv"),
    }
    for picture in ("cost.svg", "distance.svg", "frontier.svg", "sensitivity.svg"):
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
    assert pd.isna(table.loc["original", "accuracy_p_holm_vs_original"])
    assert 0 < table.loc["pruned", "accuracy_p_holm_vs_original"] <= 1


def test_the_changes_are_those_of_the_summary(measured: Path, run_stage: RunStage) -> None:
    assert run_stage("report").status == 0
    summary = pd.read_csv("metrics/summary.csv").set_index("model")
    table = pd.read_csv("metrics/changes.csv")
    distances = sum(figure.distance for figure in FIGURES)
    assert len(table) == 2 * 3 * (len(FIGURES) - distances) + 2 * distances  # models compared with each reference
    for row in table.itertuples():
        ours, theirs = summary.loc[row.model, row.measure], summary.loc[row.reference, row.measure]
        assert row.change == ("ratio" if row.measure == "perplexity" else "difference")
        if row.change == "ratio":
            assert row.value == pytest.approx(ours / theirs, rel=2e-5)
        else:
            assert row.value == pytest.approx(ours - theirs, abs=1e-5 * abs(ours) + 1e-9)
        assert row.low <= row.value <= row.high or (pd.isna(row.low) and pd.isna(row.high))
        assert row.p <= row.p_holm <= 1
        assert summary.loc[row.model, f"{row.measure}_p_holm_vs_{row.reference}"] == row.p_holm


P_VALUES = {
    "original": (PValue(0.0002, bound=True), PValue(0.0499, bound=True)),
    "pruned": (PValue(0.03), PValue(0.0501)),
}


def comparison_of(key: str, n: int, values: dict[str, float]) -> Comparison:
    figure = next(figure for figure in FIGURES if figure.key == key)
    interval = Interval(0.5, 1.5)
    if figure.distance:
        lacking = ("original", "other_vocabulary") if figure.measure == "perplexity" else ("original",)
        values = {model: value for model, value in values.items() if model not in lacking}
    return Comparison(
        figure,
        {model: Estimate(value, interval) for model, value in values.items()},
        {
            (model, reference): Change(1.0, None, *p_values)
            for reference, p_values in P_VALUES.items()
            for model in values
            if model != reference and reference in values
        },
        n,
        f"{n} items",
    )


def page(settings: dict[str, str], n: int = 100, sensitivity_items: int = 40, **values: float) -> str:
    comparisons = [comparison_of(figure.key, n, values) for figure in FIGURES]
    sizes = dict.fromkeys(values, Size(10_000_000, 9_000_000, 8_000_000, 70_000_000, 1))
    frontier = pd.DataFrame(columns=list(COLUMNS))
    sensitivity = {name: table.assign(items=sensitivity_items) for name, table in SENSITIVITY.items()}
    absent, no_distance = {"distilled": "Why | not."}, {"other_vocabulary": "another tokenizer"}
    return render(
        Results(comparisons, sizes, {}, frontier, sensitivity, absent, no_distance, 0.2, 50, HARNESS), settings
    )


def test_settings_are_escaped() -> None:
    report = page({"cue": "a | b\nc"}, original=1.0, pruned=2.0)
    assert "| cue | a \\| b c |" in report
    assert (
        "| perplexity ↓ | 1.000 [0.500, 1.500] | 2.000 [0.500, 1.500] | × 1.000 "
        "| 100 items; p ≤ 0.0002, corrected p ≤ 0.0499 |" in report
    )
    assert "| +1.000 | 100 items; p ≤ 0.0002, corrected p ≤ 0.0499 |" in report
    assert "| distilled: not measured. Why \\| not. |" in report


def test_standard_benchmarks_are_a_table() -> None:
    report = page({}, original=1.0, pruned=2.0)
    assert "## Standard benchmarks\n\n| model | choices: acc ↑ | choices: flips ↓ |\n" in report
    assert "| original | 0.500 ± 0.050 | — |\n| pruned | 0.400 ± 0.049 | 0.200 [0.130, 0.290] |\n\nTasks" in report
    assert "Tasks of lm-evaluation-harness 0.4.13: choices on 100 documents. Each metric" in report


def test_without_a_model_there_are_no_standard_benchmarks() -> None:
    assert harness_rows(HARNESS[:0]) == [["model"]]
    assert harness_caption(HARNESS[:0]) == ""
    assert "Standard benchmarks" not in (ROOT / "report" / "report.md").read_text()


def test_a_distance_has_no_change_and_one_that_is_missing_a_reason() -> None:
    report = page({}, original=1.0, pruned=0.25, other_vocabulary=3.0)
    assert "differs from the original's for 75.0% of tokens (KL divergence 0.250 nats per token)" in report
    assert "| KL divergence ↓ | — | 0.250 [0.500, 1.500] |  | 100 items |" in report
    head, _, original, pruned, other = table_after(report, "## All models")
    columns = head[head.index("perplexity ↓") :]
    shown = [dict(zip(columns, row[-len(columns) :], strict=True)) for row in (original, pruned, other)]
    for name in ("KL divergence ↓", "same top token ↑"):
        assert [row[name].split(" [")[0] for row in shown] == ["—", "0.250", "another tokenizer"]
    assert [row["flips ↓"].split(" [")[0] for row in shown] == ["—", "0.250", "3.000"]
    assert "—" not in {row["perplexity ↓"] for row in shown}


def table_after(report: str, heading: str) -> list[list[str]]:
    """The cells of the first five lines of a table."""
    lines = report.split(f"{heading}\n\n")[1].splitlines()[:5]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_sizes_have_a_table_of_their_own() -> None:
    head, _, original, *_ = table_after(page({}, original=1.0, pruned=2.0, merged_2=3.0), "## Sizes")
    assert head == ["model", "parameters", "distinct", "effective", "stored, bytes", "FLOPs per token"]
    assert original == ["original", "10,000,000", "9,000,000", "8,000,000", "1", "70,000,000"]


def test_significant_differences_are_marked() -> None:
    report = page({}, original=1.0, pruned=2.0, merged_2=30.0)
    row = next(line for line in report.splitlines() if line.startswith("| merged_2 |"))
    assert row.count("[0.50, 1.50]\\* |") == 5  # 0.0499 against the original, 0.0501 against the pruned one
    assert "†" not in row
    assert "Holm's method over all models that are compared with the same reference" in report


def test_only_what_is_worse_than_guessing_is_called_so() -> None:
    lost = page({}, original=1.0, pruned=2.0, merged_2=51.0, compressed_2=49.0)
    assert "- merged_2: a perplexity above 50, worse than guessing uniformly among all tokens" in lost
    assert "worse than guessing" not in page({}, original=1.0, pruned=2.0, merged_2=49.0)


@pytest.mark.parametrize(
    ("p", "text"),
    [
        (PValue(0.0501), "= 0.05"),
        (PValue(0.0499), "= 0.0499"),
        (PValue(500 / 10001), "= 0.049995"),
        (PValue(0.05), "= 0.05"),
        (PValue(2 / 10001, bound=True), "≤ 0.0002"),
        (PValue(1.0), "= 1"),
    ],
)
def test_a_p_value_is_never_rounded_across_the_level_of_significance(p: PValue, text: str) -> None:
    assert p_value(p) == text


def test_few_items_are_announced_with_their_number() -> None:
    report = page({}, n=4, sensitivity_items=10, original=1.0, pruned=2.0)
    note = next(line for line in report.splitlines() if line.startswith("- Few items: "))
    assert "perplexity on 4 items (no p-value below 0.12); classify on 4 items" in note
    assert "sensitivity on 10 items" in note
    assert "Few items" not in page({}, original=1.0, pruned=2.0)


def test_only_merged_and_compressed_models_are_said_to_lack_training() -> None:
    """The published study did not train its pruned model."""
    report = page({}, original=1.0, pruned=51.0, merged_2=60.0)
    assert "- pruned, merged_2: a perplexity above 50" in report
    assert "- merged_2: measured as the operation leaves them, without training; the published study" in report
    assert "without training" not in page({}, original=1.0, pruned=51.0, merged_2=2.0)


def test_a_perplexity_beyond_all_numbers_is_said_to_be() -> None:
    report = page({}, original=1.0, pruned=float("inf"))
    assert "from 1.0 to above 1.8e308 " in report
    assert "| perplexity ↓ | 1.000 [0.500, 1.500] | above 1.8e308 |" in report


def test_kinds_of_matrices_are_ranked_by_their_cost_per_weight() -> None:
    """up_proj costs more in all, and v_proj more per weight."""
    rows = [line for line in page({}, original=1.0, pruned=2.0).splitlines() if "_proj |" in line]
    assert rows == [
        "| v_proj | 1,000,000 | 1.050 [1.040, 1.060] | 0.0488 |",
        "| up_proj | 8,000,000 | 1.300 [1.200, 1.400] | 0.0328 |",
    ]


def test_it_says_which_merged_model_is_which() -> None:
    assert "merged_n-anchor" in page({}, original=1.0, pruned=2.0, merged_2=3.0)
    assert "merged_n" not in page({}, original=1.0, pruned=2.0, compressed_2=3.0)
