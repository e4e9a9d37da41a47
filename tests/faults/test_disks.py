"""A disk that fills up in the middle of a run, and a cache that cannot be written.

Both are real: a small tmpfs, and a read-only bind mount, in a user namespace, where an ordinary user
may mount. Machines that forbid those skip these tests; tests/test_pipeline.py limits file sizes there.
"""

import shlex
import subprocess
from pathlib import Path

import pytest
import warm_python
from conftest import Finished
from repository import COLD, Repository, ran

IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-c")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        subprocess.run([*IN_A_NAMESPACE, "mount -t tmpfs none /mnt"], capture_output=True, check=False).returncode != 0,
        reason="user namespaces with mounts are forbidden here",
    ),
]


@pytest.fixture
def repository(finished_repository: Repository, tmp_path: Path) -> Repository:
    return finished_repository.copy(tmp_path / "repository")


def in_a_namespace(script: str, folder: Path) -> Finished:
    done = subprocess.run(
        [*IN_A_NAMESPACE, script], cwd=folder, env=COLD, capture_output=True, text=True, timeout=600, check=False
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("room", [60_000, 300_000, 400_000])
def test_the_disk_is_full(
    finished_repository: Repository, tiny_folders: dict[str, Path], tmp_path: Path, room: int
) -> None:
    """With little room the run dies, wherever that is; with more room it resumes and ends as it should."""
    Repository.create(tmp_path / "repository", tiny_folders["llama"])
    for name in ("disk", "warm"):
        (tmp_path / name).mkdir()
    warm_python.write_commands(tmp_path / "warm")
    finished = in_a_namespace(
        f"""
        set -e
        # A server sees this disk only if it starts here. Its input, and with it the server, ends with this shell.
        exec 3> >(python {shlex.quote(warm_python.__file__)} serve warm/socket)
        export PATH="$PWD/warm:$PATH"
        export PYTHONDONTWRITEBYTECODE=1 # which would take some of the room
        mount -t tmpfs -o size=1g none disk
        cp -a repository disk/
        used=$(df --output=used -B1 disk | tail -1)
        mount -o remount,size=$((used + {room})) disk
        cd disk/repository
        if dvc repro > ../../full.out 2> ../../full.err; then exit 9; fi
        mount -o remount,size=1g ..
        # DVC writes its list of locks in place, and stops at one that was cut off: verify knows what to do.
        dvc repro || bash -ec "$(python -m stages.verify | tail -1 | sed 's/fix it with: //')"
        cp -a . ../../after
        """,
        tmp_path,
    )
    assert finished.status == 0, finished.out + finished.err
    told = (tmp_path / "full.err").read_text()
    assert "Traceback" not in told
    assert any("is full" in line or "No space left" in line for line in told.splitlines()), told
    done = ran((tmp_path / "full.out").read_text())
    again = ran(finished.out)
    assert len(done & again) <= 1, "what had been computed was computed again"
    assert Repository(tmp_path / "after").results() == finished_repository.results()


def test_a_read_only_cache(repository: Repository) -> None:
    """DVC cannot continue without writing to it, and says so; nothing is lost, and it resumes when it can."""
    before = repository.results()
    params = repository.folder / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("sparsity: 0.3", "sparsity: 0.4"))
    failed = in_a_namespace("mount --bind -o ro .dvc/cache .dvc/cache && dvc repro", repository.folder)
    assert failed.status != 0
    (line,) = [line for line in failed.err.splitlines() if line.startswith("ERROR: failed to reproduce")]
    assert "Read-only file system" in line
    assert "Traceback" not in failed.err
    params.write_text(good)
    assert ran(repository.dvc("repro")) <= {"prune"}  # the one that was at work
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def test_a_read_only_remote(repository: Repository, tmp_path: Path) -> None:
    """A colleague takes everything from it; giving to it is refused in one line, and loses nothing."""
    remote = tmp_path / "remote"
    repository.dvc("remote", "add", "--default", "team", str(remote))
    repository.commit("Share results")
    repository.dvc("push", "--run-cache")
    clone = Repository(tmp_path / "clone")
    repository.git("clone", "-q", str(repository.folder), str(clone.folder))
    read_only = f"mount --bind -o ro {shlex.quote(str(remote))} {shlex.quote(str(remote))} && "
    pulled = in_a_namespace(read_only + "dvc pull --run-cache && dvc repro", clone.folder)
    assert pulled.status == 0, pulled.err
    assert ran(pulled.out) == set()
    assert clone.results() == repository.results()
    clone.dvc("exp", "run", "-S", "prune.sparsity=0.4")
    after = clone.results()
    pushed = in_a_namespace(read_only + "dvc push", clone.folder)
    assert pushed.status != 0
    assert "Read-only file system" in pushed.err
    assert "Traceback" not in pushed.err
    assert clone.results() == after
    clone.dvc("push")  # where it can be written again
