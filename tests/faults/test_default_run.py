"""`kill -9` once in each stage of the run on the real model: it ends with the committed code's metrics.

Takes ten minutes, so it is asked for by name: `python -m pytest -m default_run`. It is held
against the metrics in this working tree, which have to be of a run on the same machine; what that
run left in the cache spares it the items of a stage beside the one that is killed.
"""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Collection
from pathlib import Path

import pytest
from conftest import ROOT
from repository import Repository
from ruamel.yaml import YAML

VARIANT = "compressed_10"
"""One of the variants: all run the same script."""

KILLED = {
    "download@text",
    "baseline-ppl",
    "prune",
    "recover",
    "post-ppl",
    "classify@pruned",
    "summarize@pruned",
    "shrink",
    f"recover-others@{VARIANT}",
    f"compare@{VARIANT}",
    "sensitivity",
    "report",
}

SHORT = ("download", "prune", "recover", "report")
"""Stages of a few seconds at most; they are killed in their first one."""


@pytest.mark.default_run
def test_one_kill_in_each_stage(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    Repository(ROOT).git("clone", "-q", str(ROOT), str(folder))
    repository = Repository(folder)
    stages = YAML(typ="safe", pure=True).load(folder / "dvc.yaml")["stages"]
    assert {name.partition("@")[0] for name in KILLED} == stages.keys() - {"frontier"}  # which is off
    expected = {path: (ROOT / path).read_bytes() for path in measured(ROOT)}
    for path in measured(folder):  # whatever is there in the end is from this run
        (folder / path).unlink()
    lock = YAML(typ="safe", pure=True).load(ROOT / "dvc.lock")["stages"]
    (folder / "dvc.lock").unlink()
    share_cache(folder, {lock[stage]["cmd"] for stage in KILLED})
    moments = random.Random(0)
    killed: set[str] = set()
    while (stage := run_until_a_new_stage(repository, killed, moments)) is not None:
        killed.add(stage)
    assert killed == KILLED
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


def run_until_a_new_stage(
    repository: Repository, killed: set[str], moments: random.Random, mended: bool = False
) -> str | None:
    """Run, and kill the first stage that was not killed before; its name, or None when the run has ended."""
    process = repository.repro()
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        started = re.match(r"Running stage '(.+)':", line)
        if started and started[1] not in killed:
            time.sleep(moments.uniform(0.2, 1 if started[1].startswith(SHORT) else 15))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return started[1]
    if process.wait() != 0:
        assert not mended, "".join(lines)
        repository.mend_lock_file("".join(lines))
        return run_until_a_new_stage(repository, killed, moments, mended=True)
    return None
