"""The user's own files and folders."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from stages.lib.plumbing.sources import Local


def existing_file(item: "Local") -> Path:
    """The path of a local file. Raises UserError if it is missing, a folder, or empty."""
    path = Path(item.path)
    if not path.exists():
        raise UserError(f"{path}: not found; correct the path in params.yaml")
    if not path.is_file():
        raise UserError(f"{path}: is a folder; give a file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty; give a file with content")
    return path


def existing_folder(item: "Local") -> Path:
    """The path of a local folder. Raises UserError if it is missing, a file, or empty."""
    path = Path(item.path)
    if not path.exists():
        raise UserError(f"{path}: not found; correct the path in params.yaml")
    if not path.is_dir():
        raise UserError(f"{path}: is a file; give a Hugging Face model folder")
    if not any(path.iterdir()):
        raise UserError(f"{path}: is empty; give a Hugging Face model folder")
    return path
