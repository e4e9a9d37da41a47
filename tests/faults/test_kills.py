"""`kill -9` of DVC and its stage: the next `dvc repro` ends with what an undisturbed run leaves, to the byte.

Moments and stages are drawn by a seed, which follows from the commit and stands at the top of pytest's output:
`python -m pytest tests/faults/test_kills.py --kills=50 --kill-seed=7`.
"""

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
from conftest import ROOT, changed_params, write_params
from repository import ALL, Repository, ran
from ruamel.yaml import YAML


@pytest.fixture
def moments(pytestconfig: pytest.Config) -> random.Random:
    return random.Random(pytestconfig.getoption("kill_seed"))


def run_for(repository: Repository, seconds: float) -> bool:
    """Run `dvc repro`, and kill it and its stage after that time; whether it had finished before."""
    process = repository.repro()
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        repository.mend_lock_file(output)
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
            finished = run_for(repository, moments.uniform(0.5, 4))  # a stage and DVC's books take about one
            kills += not finished
        assert run_for(repository, 600)
        assert repository.results() == undisturbed
        assert repository.run("python", "-m", "stages.verify").status == 0


def run_until_a_new_stage(repository: Repository, killed: Collection[str], delay: Callable[[str], float]) -> str | None:
    """Run, and kill the first stage that was not killed before; its name, or None when the run has ended.

    Where that stage was faster than the kill, it is the name of the later stage that was running then.
    """
    for _ in range(2):
        process = repository.repro()
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            started = re.match(r"Running stage '(.+)':", line)
            if started and started[1] not in killed:
                time.sleep(delay(started[1]))
                os.killpg(process.pid, signal.SIGKILL)
                rest, _ = process.communicate()
                return [started[1], *re.findall(r"^Running stage '(.+)':$", rest, re.MULTILINE)][-1]
        if process.wait() == 0:
            return None
        repository.mend_lock_file("".join(lines))  # which is needed once at most
    raise AssertionError("".join(lines))


@pytest.mark.slow
def test_a_kill_in_each_stage(
    finished_repository: Repository, tiny_folders: dict[str, Path], tmp_path: Path, moments: random.Random
) -> None:
    """With recovery and a point of the frontier, so that every stage has work to do."""
    params = changed_params({"recover.steps": 4, "frontier.methods": ["magnitude"], "frontier.sparsities": [0.3]})
    undisturbed = finished_repository.copy(tmp_path / "undisturbed")
    write_params(undisturbed.folder, params)
    assert "frontier@magnitude-0.3" in ran(undisturbed.dvc("repro"))
    repository = Repository.create(tmp_path / "repository", tiny_folders["llama"])
    write_params(repository.folder, params)
    killed: set[str] = set()
    while stage := run_until_a_new_stage(repository, killed, lambda stage: moments.uniform(0, 0.6)):
        killed.add(stage)
    for stage in (ALL | {"frontier@magnitude-0.3"}) - killed:
        process, _ = repository.start(stage)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert run_for(repository, 600)
    assert without_seconds(repository) == without_seconds(undisturbed)


def without_seconds(repository: Repository) -> dict[str, str]:
    """The results but for the frontier's, which say how long a point took."""
    return {name: digest for name, digest in repository.results().items() if "frontier" not in name}


# The run on the real model.

VARIANT = "compressed_10"
"""One of the variants: all run the same script."""

STAGES = [
    *("download@text", "baseline-ppl", "prune", "recover", "post-ppl", "classify@pruned", "summarize@pruned"),
    *("shrink", f"recover-others@{VARIANT}", f"compare@{VARIANT}", "sensitivity", "report"),
]
KILLED = 2
"""So many of these stages are drawn in each run."""

SHORT = ("download", "prune", "recover", "report")
"""Stages of a few seconds at most; they are killed in their first one."""


@pytest.mark.real_model
def test_kills_on_the_real_model(tmp_path: Path, moments: random.Random) -> None:
    """After the run of the committed params in this working tree.

    The metrics that it left are expected, and its cache spares the stages that are not killed.
    """
    folder = tmp_path / "repository"
    Repository(ROOT).git("clone", "-q", str(ROOT), str(folder))
    repository = Repository(folder).cold()
    dag = YAML(typ="safe", pure=True).load(folder / "dvc.yaml")["stages"]
    assert {name.partition("@")[0] for name in STAGES} == dag.keys() - {"frontier"}  # which is off
    chosen = {*moments.sample(STAGES, KILLED)}
    print("killed:", *sorted(chosen))
    expected = {path: (ROOT / path).read_bytes() for path in measured(ROOT)}
    for path in measured(folder):  # whatever is there in the end is from this run
        (folder / path).unlink()
    lock = YAML(typ="safe", pure=True).load(ROOT / "dvc.lock")["stages"]
    (folder / "dvc.lock").unlink()
    share_cache(folder, {lock[stage]["cmd"] for stage in chosen})
    killed = lock.keys() - chosen  # those are let through
    while stage := run_until_a_new_stage(
        repository, killed, lambda stage: moments.uniform(0.2, 1 if stage.startswith(SHORT) else 15)
    ):
        killed.add(stage)
    assert killed == lock.keys()
    assert {path: (folder / path).read_bytes() for path in measured(folder)} == expected


def measured(folder: Path) -> set[Path]:
    """Where a working tree has metrics."""
    return {path.relative_to(folder) for kind in ("json", "csv") for path in (folder / "metrics").rglob(f"*.{kind}")}


def share_cache(folder: Path, forgotten: Collection[str]) -> None:
    """Give a clone this working tree's cache, but for what it says of the runs of some commands."""

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
