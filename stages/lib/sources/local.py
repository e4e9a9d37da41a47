"""The user's own files and folders."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Local


def existing_file(item: "Local") -> Path:
    """The path of a local file. Raises UserError if it is missing, a folder, or empty."""
    path = Path(item.path)
    _check(path, path.is_file(), "is a folder; give a file")
    _check(path, path.stat().st_size > 0, "is empty; give a file with content")
    return path


def existing_folder(item: "Local") -> Path:
    """The path of a local folder. Raises UserError if it is missing, a file, or empty."""
    path = Path(item.path)
    _check(path, path.is_dir(), "is a file; give a Hugging Face model folder")
    _check(path, any(path.iterdir()), "is empty; give a Hugging Face model folder")
    return path


def _check(path: Path, right: bool, message: str) -> None:
    if not path.exists():
        raise UserError(f"{path}: not found; correct the path in params.yaml")
    if not right:
        raise UserError(f"{path}: {message}")
