"""The user's own files and folders."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Local


def existing_model(item: "Local") -> Path:
    """The path of a model folder or GGUF file of the user's. Raises UserError as `existing_file` does."""
    path = _existing(item, "a Hugging Face model folder or a .gguf file")
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise UserError(f"{path}: is a file; give a Hugging Face model folder or a .gguf file")
    return path


def existing_file(item: "Local") -> Path:
    """The path of a local file. Raises UserError if it is missing, a folder, or empty."""
    path = _existing(item, "a file with content")
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give a file with content")
    return path


def _existing(item: "Local", wanted: str) -> Path:
    path = Path(item.path)
    if not path.exists():
        raise UserError(f"{path}: not found; correct the path in params.yaml")
    if not (any(path.iterdir()) if path.is_dir() else path.stat().st_size):
        raise UserError(f"{path}: is empty; give {wanted}")
    return path
