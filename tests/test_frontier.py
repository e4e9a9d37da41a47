"""The frontier's points against the stages that measure one model, and its table and picture."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import Finished, changed_params, write_params
from repository import Repository, ran

from stages.lib.figures.comparison import Comparison
from stages.lib.figures.frontier_table import COLUMNS, by_sparsity
from stages.lib.reporting.frontier_plot import draw
from stages.lib.figures.measures import MEASURES, Estimate
from stages.lib.figures.statistics import Interval
from stages.lib.reporting.study import Size

RunStage = Callable[..., Finished]


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_a_point_is_what_the_stages_measure(project: Path, run_stage: RunStage, method: str) -> None:
    write_params(project, changed_params({"prune.method": method, "prune.sparsity": 0.6, "recover.steps": 3}))
    stages = [("download", "model"), ("download", "text"), ("prune",), ("recover",), ("post_ppl",)]
    left_behind = Path(f"data/.frontier-{method}-0.6.part/recipe.json")  # by a point that was killed
    left_behind.parent.mkdir(parents=True)
    left_behind.touch()
    for stage in (*stages, ("frontier", f"{method}-0.6")):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    point = json.loads(Path(f"metrics/frontier/{method}-0.6.json").read_text())
    pruned, recovered, measured = (
        json.loads(Path(f"metrics/{name}.json").read_text()) for name in ("prune", "recover/pruned", "post_ppl")
    )
    assert point["pruned"]["effective_parameters"] == pruned["effective_parameters"]
    assert point["recovered"]["effective_parameters"] == recovered["effective_parameters"]
    assert point["recovered"]["perplexity"] == measured["perplexity"]
    assert point["pruned"]["perplexity"] == measured["perplexity_before_recovery"]
    for kind, folder in (("pruned", "pruned"), ("recovered", "recovered/pruned")):
        size = sum(path.stat().st_size for path in (project / "data" / folder).iterdir())
        assert point[kind]["stored_bytes"] == size
        assert point[kind]["perplexity_low"] <= point[kind]["perplexity"] <= point[kind]["perplexity_high"] or (
            "perplexity_low" not in point[kind]  # of a single window there is none
        )
        assert point[kind]["seconds"] >= 0
    assert not list(Path("data").glob("*.part"))


def test_points_are_stages_and_a_new_one_runs_alone(finished_repository: Repository, tmp_path: Path) -> None:
    repository = finished_repository.copy(tmp_path / "repository")
    table = repository.folder / "metrics" / "frontier.csv"
    header = table.read_text()
    assert header.startswith("method,sparsity,recovery_steps,effective_parameters,stored_bytes,perplexity,")
    assert header.count("\n") == 1
    output = repository.dvc("exp", "run", "-S", "frontier.methods=[wanda]")
    assert ran(output) == {"frontier@wanda-0.3", "frontier@wanda-0.6", "report"}
    found = pd.read_csv(table)
    assert found[["method", "sparsity", "recovery_steps"]].to_numpy().tolist() == [
        ["wanda", 0.3, 0],
        ["wanda", 0.3, 3],
        ["wanda", 0.6, 0],
        ["wanda", 0.6, 3],
    ]
    assert found["effective_parameters"].is_monotonic_decreasing
    output = repository.dvc("exp", "run", "-S", "frontier.sparsities=[0.3]", "-S", "frontier.methods=[wanda,random]")
    assert ran(output) == {"frontier@random-0.3", "report"}
    assert pd.read_csv(table)["method"].tolist() == ["wanda", "wanda", "random", "random"]
    assert sorted(path.name for path in (repository.folder / "metrics/frontier").glob("*.json")) == [
        "random-0.3.json",
        "wanda-0.3.json",
    ]


@pytest.fixture
def points() -> pd.DataFrame:
    """Of one method, before and after recovery; one point without an interval."""
    return pd.DataFrame(
        [
            ("wanda", sparsity, steps, 90e6 - 1e8 * sparsity, 1, value, low, low * 1.2, 5)
            for steps in (0, 20)
            for sparsity, value, low in ((0.5, 1e9, 9e8), (0.2, 30.0 - steps, np.nan if steps else 27.0))
        ],
        columns=list(COLUMNS),
    )


def test_the_table_has_a_row_a_sparsity(points: pd.DataFrame) -> None:
    assert by_sparsity(points) == [
        ["sparsity", "effective", "wanda ↓", "wanda, 20 steps of recovery ↓"],
        ["20.0%", "70.0M", "30.00 [27.00, 32.40]", "10.00"],
        ["50.0%", "40.0M", "1.00e+09 [9.00e+08, 1.08e+09]", "1.00e+09 [9.00e+08, 1.08e+09]"],
    ]
    assert by_sparsity(points[:0]) == [["sparsity", "effective"]]


def test_the_picture(points: pd.DataFrame, tmp_path: Path) -> None:
    models = {"original": 20.0, "pruned": 30.0, "merged_2": 1e12}
    perplexity = Comparison(
        MEASURES[0], {name: Estimate(value, Interval(1, 2)) for name, value in models.items()}, {}, 3, "3 items"
    )
    sizes = {name: Size(100, 90, 1) for name in models}
    for path in (tmp_path / "one.svg", tmp_path / "other.svg"):
        draw(points, perplexity, sizes, path)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    comments = (tmp_path / "one.svg").read_text()
    for text in ("wanda, 20 steps of recovery", "original", "merged_2", "effective parameters, millions"):
        assert f"<!-- {text} -->" in comments
    ElementTree.parse(tmp_path / "one.svg")
