"""SHA-256 of files, and of all files of a folder as `sha256sum` writes and checks them.

DVC trusts a file whose size and time have not changed; a flipped bit changes neither. A model's folder
therefore carries its sums, and is not used unless every file matches.
"""

import hashlib
from pathlib import Path

from stages.lib.files.errors import UserError

SUMS = "SHA256SUMS"


def sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Write the sums of all files of a folder into it."""
    lines = [f"{digest}  {name}\n" for name, digest in _sums(folder).items()]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def checked_sums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder. Raises UserError if a file does not match the folder's sums."""
    path = folder / SUMS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{folder}: lacks {SUMS}; restore it with `dvc repro` or `dvc checkout`") from None
    except UnicodeDecodeError:
        lines = []
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = _sums(folder)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{folder / name}: damaged, does not match {SUMS}; `python -m stages.verify` prints the fix"
            )
    return found


def _sums(folder: Path) -> dict[str, str]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: sha256(path) for name, path in files.items() if name != SUMS}
