"""The user's own files and folders."""

from pathlib import Path
from typing import TYPE_CHECKING

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Local


def existing(item: "Local", folder: bool) -> Path:
    """The path of a local file or folder. Raises UserError if it is missing, of the other kind, or empty."""
    path = Path(item.path)
    if not path.exists():
        raise UserError(f"{path}: not found; correct the path in params.yaml")
    if path.is_dir() != folder:
        problem = "is a folder" if path.is_dir() else "is a file"
    elif not (any(path.iterdir()) if folder else path.stat().st_size):
        problem = "is empty"
    else:
        return path
    raise UserError(f"{path}: {problem}; give {'a Hugging Face model folder' if folder else 'a file with content'}")
