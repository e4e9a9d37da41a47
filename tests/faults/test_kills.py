"""`kill -9` of DVC and its stage: the next `dvc repro` leaves the same bytes as an undisturbed run.

Stages and moments are drawn from a seed derived from the commit; pytest prints it at the end. To repeat or extend
a run: `python -m pytest -m slow tests/faults/test_kills.py --kills=50 --kill-seed=7`.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from conftest import ROLLING_TASK, ROOT, changed_params, write_params
from repository import ALL, Repository, ran
from ruamel.yaml import YAML


@pytest.fixture
def moments(pytestconfig: pytest.Config) -> random.Random:
    return random.Random(pytestconfig.getoption("kill_seed"))


def run_for(repository: Repository, seconds: float) -> bool:
    """Run `dvc repro` and kill it and its stage after that time; return whether it finished first."""
    process = repository.repro()
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        repository.fix_lock_file(output)
        return run_for(repository, seconds)
    return True


@pytest.mark.slow
def test_kills_at_random_moments(
    finished_repository: Repository,
    tiny_folders: dict[str, Path],
    tmp_path: Path,
    pytestconfig: pytest.Config,
    moments: random.Random,
) -> None:
    wanted = pytestconfig.getoption("kills")
    undisturbed = finished_repository.results()
    kills = runs = 0
    while kills < wanted:
        repository = Repository.create(tmp_path / f"run-{runs}", tiny_folders["llama"])
        runs += 1
        finished = False
        while not finished and kills < wanted:
            finished = run_for(repository, moments.uniform(1, 5))  # DVC takes one to start; a stage takes as long
            kills += not finished
        assert run_for(repository, 600)
        assert repository.results() == undisturbed
        assert repository.run("python", "-m", "stages.verify").status == 0


def run_until_a_new_stage(repository: Repository, spared: Collection[str], delay: Callable[[str], float]) -> str | None:
    """Run `dvc repro`, kill the first stage that is not spared, and return its name, or None if the run finishes.

    If that stage ended before the kill, return the stage that was running.
    """
    for _ in range(2):
        process = repository.repro()
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            started = re.match(r"Running stage '(.+)':", line)
            if started and started[1] not in spared:
                time.sleep(delay(started[1]))
                os.killpg(process.pid, signal.SIGKILL)
                rest, _ = process.communicate()
                if process.returncode == 0:
                    return None
                return [started[1], *re.findall(r"^Running stage '(.+)':$", rest, re.MULTILINE)][-1]
        if process.wait() == 0:
            return None
        repository.fix_lock_file("".join(lines))  # needed at most once
    raise AssertionError("".join(lines))


@pytest.mark.slow
def test_a_kill_in_each_stage(tiny_folders: dict[str, Path], tmp_path: Path, moments: random.Random) -> None:
    """With recovery, a point of the frontier and a task of the harness, so that every stage has work to do.

    The undisturbed run consists of ordinary processes, without the forks of tests/warm_python.py.
    """
    frontier = {"frontier.methods": ["magnitude"], "frontier.sparsities": [0.3]}
    tasks = {"harness.models": ["original"], "harness.tasks": ["lines"], "harness.path": "mine/tasks"}
    params = changed_params({"recover.steps": 4, **frontier, **tasks})
    runs = {}
    for name in ("undisturbed", "killed"):
        runs[name] = Repository.create(tmp_path / name, tiny_folders["llama"])
        write_params(runs[name].folder, params)
        (runs[name].folder / "mine" / "tasks").mkdir()
        (runs[name].folder / "mine" / "tasks" / "lines.yaml").write_text(ROLLING_TASK)
    stages = ALL | {"frontier@magnitude-0.3", "harness@lines-original", "measure-harness@original"}
    assert ran(runs["undisturbed"].cold().dvc("repro")) == stages
    repository = runs["killed"]
    killed: set[str] = set()
    while stage := run_until_a_new_stage(repository, killed, lambda stage: moments.uniform(0, 0.6)):
        killed.add(stage)
    for stage in sorted(stages - killed):  # those that ended before their kill; cold, none ends within half a second
        process, _ = repository.cold().start(stage)
        time.sleep(moments.uniform(0.1, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert run_for(repository, 600)
    assert runs["killed"].results() == runs["undisturbed"].results()


# The run on the real model.

VARIANT = "compressed_10"
"""One of the variants: all run the same script."""

STAGES = [
    *("download@text", "baseline-ppl", "prune", "post-ppl", "classify@pruned", "summarize@pruned"),
    *("measure@pruned", "shrink", f"compare@{VARIANT}", f"measure-others@{VARIANT}", "sensitivity", "report"),
]
"""Those with work to do: recovery is off in the committed params, and so are the frontier and the harness."""
KILLED = 2
"""How many of these stages each run kills."""


@pytest.mark.real_model
def test_kills_on_the_real_model(tmp_path: Path, moments: random.Random) -> None:
    """Needs the finished run of the committed params in this working tree, of all its stages.

    Its metrics are expected, its times say when to kill, and its cache supplies the stages that are not killed.
    """
    folder = tmp_path / "repository"
    Repository(ROOT).git("clone", "-q", str(ROOT), str(folder))
    repository = Repository(folder).cold()
    dag = YAML(typ="safe", pure=True).load(folder / "dvc.yaml")["stages"]
    assert {name.partition("@")[0] for name in STAGES} == dag.keys() - {
        "recover",
        "recover-others",
        "frontier",
        "harness",
        "measure-harness",
    }
    chosen = {*moments.sample(STAGES, KILLED)}
    print("killed:", *sorted(chosen))
    expected = {path: (ROOT / path).read_bytes() for path in measured(ROOT)}
    for path in measured(folder):  # so that every metric found at the end is from this run
        (folder / path).unlink()
    lock = YAML(typ="safe", pure=True).load(ROOT / "dvc.lock")["stages"]
    (folder / "dvc.lock").unlink()
    share_cache(folder, {lock[stage]["cmd"] for stage in chosen})
    spared = lock.keys() - chosen
    while stage := run_until_a_new_stage(
        repository, spared, lambda stage: moments.uniform(0.1, 0.1 + 0.8 * took(stage))
    ):
        spared.add(stage)  # from now on
    assert spared == lock.keys()
    assert {path: (folder / path).read_bytes() for path in measured(folder)} == expected


def took(stage: str) -> float:
    """The seconds that a stage took in this working tree, without the start of its process."""
    name = stage.replace("measure-others", "measure")  # one script
    times = json.loads((ROOT / "data" / "times" / f"{name}.json").read_text(encoding="utf-8"))
    return float(times["seconds"])


def measured(folder: Path) -> set[Path]:
    """The paths of the metrics in a working tree."""
    return {path.relative_to(folder) for kind in ("json", "csv") for path in (folder / "metrics").rglob(f"*.{kind}")}


def share_cache(folder: Path, forgotten: Collection[str]) -> None:
    """Give a clone this working tree's cache, without the recorded runs of the given commands."""

    def linked(source: str, target: str) -> None:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)

    cache = folder / ".dvc" / "cache"
    shutil.copytree(ROOT / ".dvc" / "cache", cache, copy_function=linked)
    for runs in list((cache / "runs").glob("*/*")):  # of one command with one input each
        if YAML(typ="safe", pure=True).load(next(runs.iterdir()))["cmd"] in forgotten:
            shutil.rmtree(runs)  # not its files alone: DVC stops at an empty folder
