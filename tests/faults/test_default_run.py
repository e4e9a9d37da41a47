"""`kill -9` once in each stage of the run on the real model: it ends with the committed code's metrics.

Takes ten minutes, so it is asked for by name: `python -m pytest -m default_run`. It is held
against the metrics in this working tree, which have to be of a run on the same machine.
"""

import os
import random
import re
import signal
import time
from pathlib import Path

import pytest
from conftest import ROOT
from repository import Repository
from ruamel.yaml import YAML

VARIANT = "merged_10"
"""One of the variants: all run the same script."""

SHORT = ("download", "prune", "recover", "report")
"""Stages of a few seconds at most; they are killed in their first one."""


@pytest.mark.default_run
def test_one_kill_in_each_stage(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    Repository(ROOT).git("clone", "-q", str(ROOT), str(folder))
    repository = Repository(folder)
    set_variants(folder / "params.yaml", [VARIANT])
    for path in (folder / "metrics").rglob("*.json"):  # whatever is there in the end is from this run
        path.unlink()
    for path in (folder / "metrics").glob("*/*.csv"):
        path.unlink()
    (folder / "dvc.lock").unlink()
    moments = random.Random(0)
    killed: set[str] = set()
    while (stage := run_until_a_new_stage(repository, killed, moments)) is not None:
        killed.add(stage)
    names = {name.partition("@")[0] for name in killed}
    stages = set(YAML(typ="safe", pure=True).load((folder / "dvc.yaml").read_text())["stages"])
    assert names == stages - {"frontier"}  # which is off
    assert len(killed) == 5 + 4 + 2 + 2 + 1 + 1 + 1 + 1 + 1
    found = [path.relative_to(folder) for path in (folder / "metrics").rglob("*.json")]
    found += [path.relative_to(folder) for path in (folder / "metrics").glob("*/*.csv")]
    assert len(found) == 3 + 2 + 2 + 2 + 1 + 3 + 2
    for path in found:
        assert (folder / path).read_bytes() == (ROOT / path).read_bytes(), path


def set_variants(params: Path, variants: list[str]) -> None:
    yaml = YAML()
    content = yaml.load(params)
    content["compare"]["variants"] = variants
    yaml.dump(content, params)


def run_until_a_new_stage(repository: Repository, killed: set[str], moments: random.Random) -> str | None:
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
        repository.mend_lock_file("".join(lines))
        return run_until_a_new_stage(repository, killed, moments)
    return None
