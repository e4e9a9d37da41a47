"""A clone has the line ends that dvc.lock was written with, whatever Git is set to."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT

LISTED = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
TRACKED = [name for name in LISTED.stdout.split("\0") if name and (ROOT / name).is_file()]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(LISTED.returncode != 0, reason="needs a Git repository")
@pytest.mark.parametrize("convert", ["true", "input", "false"])
def test_a_clone_has_the_same_bytes(tmp_path: Path, convert: str) -> None:
    origin, clone = tmp_path / "origin", tmp_path / "clone"
    for name in TRACKED:
        (origin / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, origin / name)
    git(tmp_path, "init", "-q", str(origin))
    git(origin, "add", "--force", ".")
    git(origin, "commit", "-q", "-m", "all")
    git(tmp_path, "clone", "-q", "--config", f"core.autocrlf={convert}", "origin", "clone")
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "ls-files", "--eol").count("w/crlf") == 0
    assert all((clone / name).read_bytes() == (ROOT / name).read_bytes() for name in TRACKED)
