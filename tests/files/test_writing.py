"""Files and folders that appear whole or not at all, whoever else writes them, and wherever a process ends."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from stages.lib.files.writing import new_file, new_folder, temporary_folder


def beside(path: Path) -> list[str]:
    return sorted(found.name for found in path.parent.iterdir() if found != path)


def test_two_writers_of_one_file(tmp_path: Path) -> None:
    with new_file(tmp_path / "a") as first:
        first.write_text("first")
        with new_file(tmp_path / "a") as second:
            second.write_text("second")
        assert (tmp_path / "a").read_text() == "second"
    assert (tmp_path / "a").read_text() == "first"
    assert beside(tmp_path / "a") == []


def test_two_writers_of_one_folder(tmp_path: Path) -> None:
    with new_folder(tmp_path / "a") as first:
        (first / "name").write_text("first")
        with new_folder(tmp_path / "a") as second:
            (second / "name").write_text("second")
        assert (tmp_path / "a" / "name").read_text() == "second"
    assert (tmp_path / "a" / "name").read_text() == "first"
    assert beside(tmp_path / "a") == []


def test_a_file_in_a_folder_that_is_being_written(tmp_path: Path) -> None:
    """As a recipe is written: each of the two takes its own lock."""
    with new_folder(tmp_path / "a") as folder, new_file(folder / "name") as file:
        file.write_text("whole")
    assert (tmp_path / "a" / "name").read_text() == "whole"


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "name").write_text("before")
    with pytest.raises(KeyError), new_folder(tmp_path / "a") as folder:
        (folder / "name").write_text("after")
        raise KeyError
    assert (tmp_path / "a" / "name").read_text() == "before"
    assert beside(tmp_path / "a") == []


def in_a_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own; its exit status."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("writer", [new_file, new_folder, temporary_folder])
def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path: Path, writer: Callable[[Path], AbstractContextManager[Path]]
) -> None:
    def dies() -> None:
        with writer(tmp_path / "a"):
            os.kill(os.getpid(), signal.SIGKILL)

    def writes() -> None:
        with writer(tmp_path / "a") as path:
            if writer is new_file:
                path.touch()

    assert in_a_child(dies) == -signal.SIGKILL
    assert len(beside(tmp_path / "a")) == 1
    with temporary_folder(tmp_path / "a") as living:
        assert beside(tmp_path / "a") == [living.name]
        (living / "name").touch()
        assert in_a_child(writes) == 0
        assert (living / "name").exists()
    assert beside(tmp_path / "a") == []


@pytest.mark.parametrize("last", range(1, 6))
@pytest.mark.parametrize(("owner", "name"), [(Path, "replace"), (os, "unlink"), (os, "rmdir")])
def test_a_process_that_ends_anywhere_leaves_one_of_both_whole(
    tmp_path: Path, owner: Any, name: str, last: int
) -> None:
    def dies() -> None:
        calls, original = iter(range(1, 100)), getattr(owner, name)
        setattr(owner, name, lambda *given, **named: os._exit(7) if next(calls) == last else original(*given, **named))
        with new_folder(tmp_path / "a") as new:
            (new / "one").write_text("after")
            (new / "two").write_text("after")

    with new_folder(tmp_path / "a") as folder:
        (folder / "one").write_text("before")
        (folder / "two").write_text("before")
    ended = in_a_child(dies)
    assert ended == 7 if last == 1 else ended in (0, 7)  # each of these is called at least once
    with temporary_folder(tmp_path / "a"):
        pass  # the next writer
    contents = {file.name: file.read_text() for file in (tmp_path / "a").iterdir()}
    assert contents in (dict.fromkeys(("one", "two"), "before"), dict.fromkeys(("one", "two"), "after"))
    assert ended == 7 or contents["one"] == "after"
    assert beside(tmp_path / "a") == []


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut after the rename must find the content."""
    flushed: list[int] = []
    renamed: list[int] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: (flushed.append(os.fstat(descriptor).st_ino), fsync(descriptor))
    )

    def recorded(path: Path, target: Path) -> Path:
        parts = [path, *path.rglob("*")] if path.is_dir() else [path]
        renamed.extend(part.stat().st_ino for part in parts)
        assert set(renamed) <= set(flushed)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", recorded)
    with new_file(tmp_path / "a") as file:
        file.write_text("content")
    with new_folder(tmp_path / "b") as folder:
        (folder / "c").write_text("content")
    assert len(renamed) == 3
    assert flushed[-1] == tmp_path.stat().st_ino
