"""The frontier's points against the stages that measure one model, and its table and picture."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import Finished, changed_params, write_params
from repository import Repository, ran

from stages.lib.figures.comparison import Comparison
from stages.lib.figures.definitions import FIGURES, Estimate, figures_of
from stages.lib.figures.statistics import Interval
from stages.lib.figures.tables import COLUMNS, read_frontier
from stages.lib.files.parquet import read_table
from stages.lib.files.places import predictions_path
from stages.lib.plumbing.params import Frontier
from stages.lib.reporting.pictures import draw_frontier
from stages.lib.reporting.study import Size
from stages.lib.reporting.wording import frontier_rows

RunStage = Callable[..., Finished]


@pytest.mark.parametrize("method", ["magnitude", "sparsegpt"])
def test_a_point_is_what_the_stages_measure(project: Path, run_stage: RunStage, method: str) -> None:
    write_params(project, changed_params({"prune.method": method, "prune.sparsity": 0.6, "recover.steps": 3}))
    stages = [("download", "model"), ("download", "text"), ("baseline_ppl",), ("prune",), ("recover",), ("post_ppl",)]
    left_behind = Path(f"data/predictions/frontier/.{method}-0.6.x.part/recipe.json")  # by a point that was killed
    left_behind.parent.mkdir(parents=True)
    left_behind.touch()
    for stage in (*stages, ("frontier", method, "0.6")):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    settings = Frontier(methods=[method], sparsities=[0.6], steps=3)
    points = read_frontier(Path("data/predictions/frontier"), settings, 100, 0)
    measured = figures_of("perplexity", read_table(predictions_path("perplexity", "pruned")), 100, 0)
    size = read_table(predictions_path("size", "pruned")).iloc[0]
    assert points["recovery_steps"].tolist() == [0, 3]
    assert points["effective_parameters"].tolist()[1] == size["effective_parameters"]
    assert points["perplexity"].tolist() == [measured["perplexity_before_recovery"], measured["perplexity"]]
    for stored, folder in zip(points["stored_bytes"], ("pruned", "recovered/pruned"), strict=True):
        files = [path for path in (project / "data" / folder).iterdir() if path.name != "losses.csv"]
        assert stored == sum(path.stat().st_size for path in files)
    assert (points["perplexity_low"] <= points["perplexity"]).all()
    assert not list(Path("data").rglob("*.part"))


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
    output = repository.dvc("exp", "run", "-S", "frontier.sparsities=[0]", "-S", "frontier.methods=[magnitude]")
    assert ran(output) == {"frontier@magnitude-0", "report"}  # a whole number is a number, too
    assert pd.read_csv(table)["sparsity"].tolist() == [0, 0]


@pytest.fixture
def points() -> pd.DataFrame:
    """Of one method, before and after recovery; one point without an interval."""
    return pd.DataFrame(
        [
            ("wanda", sparsity, steps, 90e6 - 1e8 * sparsity, 1, value, low, low * 1.2)
            for steps in (0, 20)
            for sparsity, value, low in ((0.5, 1e9, 9e8), (0.2, 30.0 - steps, np.nan if steps else 27.0))
        ],
        columns=list(COLUMNS),
    )


def test_the_table_has_a_row_before_and_after_recovery(points: pd.DataFrame) -> None:
    assert frontier_rows(points) == [
        ["method", "20.0%, 70.0M ↓", "50.0%, 40.0M ↓"],
        ["wanda", "30.00 [27.00, 32.40]", "1.00e+09 [9.00e+08, 1.08e+09]"],
        ["wanda, 20 steps of recovery", "10.00", "1.00e+09 [9.00e+08, 1.08e+09]"],
    ]
    assert frontier_rows(points[:0]) == [["method"]]


def test_the_picture(points: pd.DataFrame, tmp_path: Path) -> None:
    models = {"original": 20.0, "pruned": 30.0, "merged_2": 1e12}
    perplexity = Comparison(
        FIGURES[0], {name: Estimate(value, Interval(1, 2)) for name, value in models.items()}, {}, 3, "3 items"
    )
    sizes = {name: Size(100, 100, 90, 200, 1) for name in models}
    for folder in (tmp_path / "one", tmp_path / "other"):
        draw_frontier(points, perplexity, sizes, folder / "frontier.svg")
    assert (tmp_path / "one/frontier.svg").read_bytes() == (tmp_path / "other/frontier.svg").read_bytes()
    comments = (tmp_path / "one/frontier.svg").read_text()
    for text in (
        "wanda, 20 steps of recovery",
        "original",
        "merged_2",
        "effective parameters, millions: non-zero entries, shared tensors once per block",
    ):
        assert f"<!-- {text} -->" in comments
    ElementTree.parse(tmp_path / "one/frontier.svg")
