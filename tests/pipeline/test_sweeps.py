"""A sweep from a queue in a clean clone, and what is done with its experiments.

The clone's own setting is none of the sweep's, so it is never computed there, nor checked out.
"""

import io
import json
import time
from collections.abc import Iterator

import pandas as pd
import pytest
from repository import ALL, LIGHT, PRUNED_ONLY, Repository, ran

pytestmark = pytest.mark.slow
SIZE = "metrics/size/pruned.json"
SWEEP = {"sweep-1": 0.1, "sweep-2": 0.2, "sweep-3": 0.4}


@pytest.fixture(scope="module")
def clone(finished_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """A clean clone, without any data, after a sweep over three sparsities."""
    folder = tmp_path_factory.mktemp("sweep") / "clone"
    finished_repository.git("clone", "-q", str(finished_repository.folder), str(folder))
    clone = Repository(folder)
    clone.dvc("exp", "run", "--queue", "--name", "sweep", "-S", "prune.sparsity=0.1,0.2,0.4")
    clone.dvc("queue", "start")
    try:
        wait_for_queue(clone)
        yield clone
    finally:
        clone.dvc("queue", "stop", "--kill")


def wait_for_queue(repository: Repository) -> None:
    deadline = time.monotonic() + 600
    while True:
        status = repository.dvc("queue", "status")
        if "Queued" not in status and "Running" not in status:
            break
        assert time.monotonic() < deadline, status
        time.sleep(1)
    assert status.count("Success") == len(SWEEP), status + "".join(logs(repository).values())


def logs(repository: Repository) -> dict[str, str]:
    return {name: repository.dvc("queue", "logs", name) for name in SWEEP}


def test_what_the_settings_share_is_computed_once(clone: Repository) -> None:
    runs = [ran(log) for log in logs(clone).values()]
    shared = ALL - PRUNED_ONLY - LIGHT  # the results of light stages are in Git
    assert sorted(len(shared & run) for run in runs) == [0, 0, len(shared)]
    assert all(run >= PRUNED_ONLY for run in runs)
    assert clone.git("status", "--porcelain") == ""  # a queue leaves the workspace alone


def test_the_table_of_experiments(clone: Repository) -> None:
    table = pd.read_csv(io.StringIO(clone.dvc("exp", "show", "--csv"))).set_index("Experiment")
    for name, sparsity in SWEEP.items():
        row = table.loc[name]
        assert row["prune.sparsity"] == sparsity
        assert row[f"{SIZE}:pruned_weights"] == round(sparsity * row[f"{SIZE}:prunable_weights"])
        effective, before = (row[f"metrics/size/{model}.json:effective_parameters"] for model in ("pruned", "original"))
        assert effective == before - row[f"{SIZE}:pruned_weights"]
        assert row["metrics/perplexity/pruned.json:perplexity"] > 1
    assert table.loc[list(SWEEP), "metrics/perplexity/original.json:perplexity"].nunique() == 1


def test_metrics_and_plots_of_any_two(clone: Repository) -> None:
    diff = json.loads(clone.dvc("metrics", "diff", "--json", "sweep-1", "sweep-3"))
    assert diff[SIZE]["sparsity"]["new"] > diff[SIZE]["sparsity"]["old"]
    assert "metrics/perplexity/original.json" not in diff
    clone.dvc("plots", "diff", "sweep-1", "sweep-3", "--out", "../plots")
    page = (clone.folder.parent / "plots" / "index.html").read_text()
    assert page.count("sweep-3") > 1
    for title in ("perplexity by model", "perplexity by sparsity", "each kind of matrix alone", "each block alone"):
        assert title in page
    for axis in ("share of the prunable weights set to zero", "kind of matrix", "perplexity, as a multiple of"):
        assert f'"title": "{axis}' in page
    assert page.count('"scale": {"type": "log"}') == 2  # of models, and by sparsity: the project's own templates
    assert "DVC_METRIC_" not in page


@pytest.mark.parametrize("name", SWEEP)
def test_applied(clone: Repository, name: str) -> None:
    clone.dvc("exp", "apply", name)
    assert_clean(clone, SWEEP[name])
    clone.git("checkout", "-q", ".")


def test_a_branch(clone: Repository) -> None:
    before = clone.git("rev-parse", "--abbrev-ref", "HEAD").strip()
    clone.dvc("exp", "branch", "sweep-2", "to-a-fifth")
    clone.git("checkout", "-q", "to-a-fifth")
    clone.dvc("checkout")
    assert_clean(clone, 0.2)
    clone.git("checkout", "-q", before)


def test_saved(clone: Repository) -> None:
    clone.dvc("exp", "apply", "sweep-3")
    clone.dvc("exp", "save", "--name", "kept")
    assert_clean(clone, 0.4)
    clone.git("checkout", "-q", ".")
    assert json.loads(clone.dvc("metrics", "diff", "--json", "kept", "sweep-3")) == {}


def assert_clean(repository: Repository, sparsity: float) -> None:
    assert repository.dvc("status").strip() == "Data and pipelines are up to date."
    assert f"sparsity: {sparsity}" in (repository.folder / "params.yaml").read_text()
    counts = json.loads((repository.folder / SIZE).read_text())
    assert counts["pruned_weights"] == round(sparsity * counts["prunable_weights"])
    assert ran(repository.dvc("repro")) == set()
