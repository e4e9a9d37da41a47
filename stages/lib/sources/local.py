"""The user's own files and folders."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Local


def existing_model(item: "Local") -> Path:
    """The path of a model folder or GGUF file. Raises UserError if it is missing, empty, or another file."""
    path, wanted = Path(item.path), "a Hugging Face model folder or a .gguf file"
    if path.is_file() and path.suffix.lower() != ".gguf":
        raise UserError(f"{path}: is a file; give {wanted}")
    return _with_content(path, wanted)


def existing_file(item: "Local") -> Path:
    """The path of a local file. Raises UserError if it is missing, a folder, or empty."""
    path, wanted = Path(item.path), "a file with content"
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give {wanted}")
    return _with_content(path, wanted)


def _with_content(path: Path, wanted: str) -> Path:
    if not path.exists():
        raise UserError(f"{path}: not found; correct the path in params.yaml")
    if not (any(path.iterdir()) if path.is_dir() else path.stat().st_size):
        raise UserError(f"{path}: is empty; give {wanted}")
    return path
