"""Two runs at once, and the locks and lock file that a killed run leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import LIGHT, Repository, ran

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(finished_repository: Repository, tmp_path: Path) -> Repository:
    return finished_repository.copy(tmp_path / "repository")


def test_two_runs_at_once(repository: Repository) -> None:
    """The second refuses to run and says why; the first finishes undisturbed."""
    before = repository.results()
    first, _ = repository.cold().start("post-ppl")  # cold, so it is still running when the second starts
    second = repository.run("dvc", "repro", "--force", "--single-item", "post-ppl")
    assert second.status != 0
    (line,) = [line for line in second.err.splitlines() if line.startswith("ERROR")]
    assert "pruned.parquet' is busy, it is being blocked by:" in line
    assert "Traceback" not in second.err
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def test_whole_runs_at_once(finished_repository: Repository, tiny_folders: dict[str, Path], tmp_path: Path) -> None:
    """Whichever of three comes through, in the end there is what one undisturbed run leaves."""
    repository = Repository.create(tmp_path / "repository", tiny_folders["llama"])
    runs = []
    for _ in range(3):
        runs.append(repository.repro())
        time.sleep(2)
    outputs = [run.communicate(timeout=600)[0] for run in runs]
    assert any(run.returncode == 0 for run in runs), outputs
    assert not any("Traceback" in output for output in outputs)
    repository.dvc("repro")
    assert repository.results() == finished_repository.results()


def test_locks_of_a_killed_run(repository: Repository) -> None:
    before = repository.results()
    process, _ = repository.cold().start("post-ppl")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    rwlock = repository.folder / ".dvc" / "tmp" / "rwlock"
    held = json.loads(rwlock.read_text())
    assert (
        held["write"][str(repository.folder / "data" / "predictions" / "size" / "pruned.parquet")]["pid"] == process.pid
    )  # stale, and there
    repository.dvc("repro")
    assert repository.results() == before


def test_locks_of_a_process_that_never_was(repository: Repository) -> None:
    """As after a crash of the machine: the lock's process is gone, and its number may be anyone's."""
    before = repository.results()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = str(repository.folder / "data" / "predictions" / "size" / "pruned.parquet")
    lock = repository.folder / ".dvc" / "tmp" / "rwlock"
    lock.write_text(json.dumps({"write": {path: {"pid": gone.pid, "cmd": "dvc repro"}}, "read": {}}))
    (repository.folder / ".dvc" / "tmp" / "lock").touch()
    repository.dvc("repro", "--force", "--single-item", "post-ppl")
    assert repository.results() == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.99, None])
def test_a_lock_file_that_was_cut_off(repository: Repository, share: float | None) -> None:
    """DVC writes `dvc.lock` in place: a truncated one is reported, and no model runs again."""
    before = repository.results()
    lock = repository.folder / "dvc.lock"
    content = lock.read_bytes()
    within_a_hash = content.index(b"- path: data/recovered/merged_2", content.index(b"recover-others@merged_2:")) + 65
    lock.write_bytes(content[: within_a_hash if share is None else int(share * len(content))])
    found = repository.run("python", "-m", "stages.verify")
    assert found.status == 1
    last = (found.out + found.err).splitlines()[-1]
    (remedy,) = re.findall("fix it with: (.*)", last)
    fixed = repository.run("bash", "-ec", remedy)
    assert fixed.status == 0, fixed.err
    assert ran(fixed.out) <= LIGHT  # DVC keeps the rest in its run cache
    assert lock.read_bytes() == content
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


@pytest.mark.parametrize("left", ["", '{"write": {'])
def test_a_list_of_locks_that_was_cut_off(repository: Repository, left: str) -> None:
    """DVC writes it in place as well, and refuses a truncated one: that is reported, and no result is lost."""
    before = repository.results()
    (repository.folder / ".dvc" / "tmp" / "rwlock").write_text(left)
    stopped = repository.run("dvc", "repro")
    assert stopped.status != 0
    assert "RWLock" in stopped.err
    found = repository.run("python", "-m", "stages.verify")
    assert found.out.splitlines()[-1] == "fix it with: rm -rf .dvc/tmp/rwlock && dvc repro"
    assert repository.run("bash", "-ec", "rm -rf .dvc/tmp/rwlock && dvc repro").status == 0
    assert repository.results() == before
