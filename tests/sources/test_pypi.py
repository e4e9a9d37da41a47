"""The pypi source: pip itself fetches, from a folder of packages in place of an index."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished, changed_params, write_params

from stages.lib.files.errors import ParamsError, UserError
from stages.lib.sources.pypi import _requirement, extract

RunStage = Callable[..., Finished]
WHEEL = "some_texts-1.0-py3-none-any.whl"


def make_wheel(path: Path, members: dict[str, bytes]) -> str:
    metadata = b"Metadata-Version: 2.1\nName: some-texts\nVersion: 1.0\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr("some_texts-1.0.dist-info/METADATA", metadata)
        archive.writestr("some_texts-1.0.dist-info/WHEEL", b"Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("some_texts-1.0.dist-info/RECORD", b"")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, instead of any index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def text_from(digest: str, **changes: Any) -> dict[str, Any]:
    source = {"source": "pypi", "path": "data/none", "file": WHEEL, "sha256": digest, "member": ["texts/a.txt"]}
    return {"text": source | changes}


def test_a_member_of_a_wheel(project: Path, index: Path, run_stage: RunStage) -> None:
    digest = make_wheel(index / WHEEL, {"texts/a.txt": b"na\xc3\xafve"})
    write_params(project, changed_params(text_from(digest)))
    assert run_stage("download", "text") == Finished(0, "", "")
    first = (project / "data" / "text" / "rows.parquet").read_bytes()
    assert (project / "data" / "downloads" / digest / WHEEL).is_file()
    (index / WHEEL).unlink()  # what is there is not fetched again
    assert run_stage("download", "text") == Finished(0, "", "")
    assert (project / "data" / "text" / "rows.parquet").read_bytes() == first


def test_a_damaged_download_is_fetched_again(project: Path, index: Path, run_stage: RunStage) -> None:
    digest = make_wheel(index / WHEEL, {"texts/a.txt": b"cat"})
    write_params(project, changed_params(text_from(digest)))
    kept = project / "data" / "downloads" / digest / WHEEL
    kept.parent.mkdir(parents=True)
    kept.write_bytes((index / WHEEL).read_bytes()[:-50])
    assert run_stage("download", "text").status == 0
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"sha256": "0" * 64}, 1, "is not the file with sha256 0000"),
        ({"member": ["texts/b.txt"]}, 1, f"{WHEEL}: holds no texts/b.txt; correct `member` in params.yaml"),
        ({"member": ["texts/a.txt", "b"]}, 1, "texts/a.txt: not a readable archive"),
        ({"file": "other_texts-2.0-py3-none-any.whl"}, 1, "pip could not fetch other-texts==2.0"),
        ({"file": "nonsense.whl"}, 2, "nonsense.whl: not the name of a wheel or sdist"),
    ],
    ids=["hash", "member", "not an archive", "no package", "no wheel's name"],
)
def test_what_cannot_be_had(
    project: Path, index: Path, run_stage: RunStage, changes: dict[str, Any], status: int, says: str
) -> None:
    digest = make_wheel(index / WHEEL, {"texts/a.txt": b"cat"})
    write_params(project, changed_params(text_from(digest, **changes)))
    finished = run_stage("download", "text")
    assert (finished.status, len(finished.err.splitlines())) == (status, 1)
    assert says in finished.err
    assert not (project / "data" / "text").exists()


def test_no_network(project: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "0")
    write_params(project, changed_params(text_from("0" * 64)))
    finished = run_stage("download", "text")
    assert finished.status == 1
    (line,) = finished.err.splitlines()
    assert "pip could not fetch some-texts==1.0" in line
    assert "check the network and pip's configuration, or put the file at data/downloads/" in line


@pytest.mark.parametrize(
    ("file", "requirement", "option"),
    [
        ("a_b-1.2-py3-none-any.whl", "a-b==1.2", "--only-binary=:all:"),
        ("A.b-1.2.tar.gz", "a-b==1.2", "--no-binary=a-b"),
        ("p-3.1-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl", "p==3.1", "--python-version"),
    ],
)
def test_the_requirement_of_a_file(file: str, requirement: str, option: str) -> None:
    found, options = _requirement(file)
    assert found == requirement
    assert option in options


@pytest.mark.parametrize("file", ["a.whl", "a-1-b.whl", "a.tar.gz"])
def test_names_that_are_no_packages(file: str) -> None:
    with pytest.raises(ParamsError, match="not the name of a wheel or sdist"):
        _requirement(file)


def tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_an_archive_within_an_archive(tmp_path: Path) -> None:
    inner = tar({"folder/b.txt": b"found"})
    (tmp_path / "outer.tar.gz").write_bytes(tar({"a/inner.tar.gz": inner}))
    into = tmp_path / "into"
    into.mkdir()
    found = extract(tmp_path / "outer.tar.gz", ["a/inner.tar.gz", "folder/b.txt"], into)
    assert found.read_bytes() == b"found"
    assert found.suffix == ".txt"


def test_a_path_in_an_archive_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outer.tar.gz").write_bytes(tar({"../../evil.txt": b"x", "/etc/evil.txt": b"x"}))
    into = tmp_path / "a" / "b" / "into"
    into.mkdir(parents=True)
    for member in ("../../evil.txt", "/etc/evil.txt"):
        assert extract(tmp_path / "outer.tar.gz", [member], into).parent == into
    assert [path.name for path in tmp_path.rglob("*evil*")] == []


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "outer.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo("link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UserError, match=r"holds no link\.txt"):
        extract(tmp_path / "outer.tar.gz", ["link.txt"], tmp_path)


# Named, since a gzip holds the second in which it was made, and all processes have to name their tests alike.
@pytest.mark.parametrize(
    "content", [b"", b"no archive", tar({"a": b"x" * 9999})[:60]], ids=["empty", "no archive", "cut off"]
)
def test_a_damaged_archive(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "outer.tar.gz").write_bytes(content)
    with pytest.raises(UserError, match="not a readable archive"):
        extract(tmp_path / "outer.tar.gz", ["a"], tmp_path)
