"""Extracts single members from zip and tar archives, streamed; no path from an archive is used."""

import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stages.lib.files.errors import UserError


def extract(archive: Path, members: Sequence[str], into: Path) -> Path:
    """Extract `members`, each from the archive before it, and return the path of the last one.

    Each is written into the folder `into` under a number, never under a name from an archive.
    Raises UserError if an archive is damaged or a member missing.
    """
    name = archive.name
    for depth, member in enumerate(members):
        target = into / f"{depth}{''.join(Path(member).suffixes[-2:])}"
        try:
            with _open_member(archive, member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except KeyError:
            raise UserError(f"{name}: holds no {member}; correct `member` in params.yaml") from None
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error):
            raise UserError(f"{name}: not a readable archive; fetch it again, or correct `member`") from None
        archive, name = target, member
    return archive


@contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as source:
            yield source
        return
    with tarfile.open(archive) as packed:
        entry = packed.getmember(member)
        if not entry.isfile():
            raise KeyError(member)
        content = packed.extractfile(entry)
        assert content is not None  # it is a file
        with content:
            yield content
