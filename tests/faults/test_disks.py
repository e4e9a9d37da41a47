"""A disk that fills up in the middle of a run, and a cache that cannot be written.

Both are real: a small tmpfs, and a read-only bind mount, in a user namespace, where an ordinary user
may mount. Machines that forbid those skip these tests; tests/test_pipeline.py limits file sizes there.
"""

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import Finished
from repository import ENVIRONMENT, PRUNED_ONLY, Repository, ran

IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "bash", "-c")

pytestmark = [
    pytest.mark.faults,
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
        [*IN_A_NAMESPACE, script], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False
    )
    return Finished(done.returncode, done.stdout, done.stderr)


def folder_bytes(folder: Path) -> int:
    found = {path.stat().st_ino: path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file()}
    return sum(found.values())


@pytest.mark.parametrize("room", [0, 40_000, 150_000, 400_000])
def test_the_disk_is_full(
    finished_repository: Repository, tiny_folders: dict[str, Path], tmp_path: Path, room: int
) -> None:
    """With some bytes of room the run dies, wherever that is; with more it goes on and ends as it should."""
    repository = Repository.create(tmp_path / "repository", tiny_folders["llama"])
    (tmp_path / "disk").mkdir()
    size = folder_bytes(repository.folder) + len(list(repository.folder.rglob("*"))) * 4096 + room
    finished = in_a_namespace(
        f"""
        set -e
        mount -t tmpfs -o size={size} none disk
        cp -a repository disk/
        cd disk/repository
        if dvc repro > ../../full.out 2> ../../full.err; then exit 9; fi
        mount -o remount,size=1g ..
        dvc repro
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
    """What is in it is used; what would have to be written is told, and nothing is lost."""
    before = repository.results()
    read_only = f"cd {shlex.quote(str(repository.folder))} && mount --bind -o ro .dvc/cache .dvc/cache && "
    used = in_a_namespace(read_only + "rm -rf data/pruned && dvc repro", repository.folder)
    assert used.status == 0, used.err
    assert ran(used.out) == set()
    assert repository.results() == before
    params = repository.folder / "params.yaml"
    good = params.read_text()
    params.write_text(good.replace("sparsity: 0.3", "sparsity: 0.4"))
    failed = in_a_namespace(read_only + "dvc repro", repository.folder)
    assert failed.status != 0
    assert "Read-only file system" in failed.err
    assert "Traceback" not in failed.err
    assert ran(repository.dvc("repro")) == PRUNED_ONLY
    params.write_text(good)
    assert ran(repository.dvc("repro")) == {"report"}
    assert repository.results() == before


def test_a_shared_cache_of_another_user(repository: Repository, tmp_path: Path) -> None:
    """A clone that takes its objects from a cache it may not write computes nothing."""
    clone = Repository(tmp_path / "clone")
    repository.git("clone", "-q", str(repository.folder), str(clone.folder))
    cache = repository.folder / ".dvc" / "cache"
    clone.dvc("cache", "dir", "--local", str(cache))
    script = f"mount --bind -o ro {shlex.quote(str(cache))} {shlex.quote(str(cache))} && dvc checkout && dvc repro"
    finished = in_a_namespace(script, clone.folder)
    assert finished.status == 0, finished.err
    assert ran(finished.out) == set()
    assert clone.results() == repository.results()
    assert os.access(cache, os.W_OK)
