"""Files and folders that appear whole or not at all.

They are written in a temporary folder beside their place, and then renamed. The writer holds a lock on that folder,
which the system releases when the process ends, however it ends: an unlocked one was left behind, and is removed.
"""

import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder; the file that the block writes there becomes `path` if it succeeds."""
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        temporary.chmod(0o644)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that replaces `path` if the block succeeds.

    If the process ends between the two renames, the next writer puts the earlier folder back.
    """
    with temporary_folder(path) as temporary:
        yield temporary
        temporary.chmod(0o755)
        for file in temporary.rglob("*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
            _flush(file)
        _flush(temporary)
        if path.exists():
            path.replace(_aside(path))
        temporary.replace(path)
        _flush(path.parent)
        _remove(_aside(path))


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it is removed afterwards, or by the next run if this one is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(path)
    with ExitStack() as lock:
        while True:
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
            with suppress(FileNotFoundError):
                lock.enter_context(_locked(temporary))
            if temporary.exists():  # nobody took it for one left behind before it was locked
                break
        try:
            yield temporary
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _clean_up(path: Path) -> None:
    """Put back what a killed run moved aside, and remove what it left beside `path`."""
    if _aside(path).exists() and not path.exists():
        _aside(path).replace(path)
    for found in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), _locked(found, wait=False):  # a live writer's is locked
            _remove(found)


def _aside(path: Path) -> Path:
    """Where the earlier folder is while the new one takes its place."""
    return path.with_name(f".{path.name}.before.part")


@contextmanager
def _locked(folder: Path, wait: bool = True) -> Iterator[None]:
    """Lock a folder; without `wait`, raises OSError if it is locked already, or its file system knows no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError) if wait else nullcontext():
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Have a file's content, or a folder's entries, on the disk before what follows."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON with its keys in the given order and a newline at the end."""
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def significant(value: float, digits: int = 6) -> float:
    """Round to significant digits, as figures are written under metrics/."""
    return float(f"{value:.{digits}g}")
