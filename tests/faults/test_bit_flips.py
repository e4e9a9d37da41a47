"""A flipped bit that changes neither size nor time: it is never used, and the fix is printed."""

import json
import os
from pathlib import Path

import pytest
from conftest import Finished
from repository import LIGHT, Repository, ran
from ruamel.yaml import YAML

pytestmark = pytest.mark.slow


def flip_bit(path: Path) -> None:
    """Change one bit in place, in all links to a file, and leave its times as they were."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    place = len(content) // 2
    if content.startswith(b"PAR1"):  # in the footer, which Parquet's checksums leave out, a column gets another name
        footer = int.from_bytes(content[-8:-4], "little")
        place = content.index(b"document", len(content) - 8 - footer)
    content[place] ^= 4
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(content)
    path.chmod(times.st_mode & 0o777)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture(scope="module")
def by_wanda(finished_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The tiny project with a stored mask."""
    repository = finished_repository.copy(tmp_path_factory.mktemp("wanda") / "repository")
    repository.dvc("exp", "run", "-S", "prune.method=wanda")
    repository.commit("Prune by Wanda")
    return repository


@pytest.fixture
def repository(by_wanda: Repository, tmp_path: Path) -> Repository:
    return by_wanda.copy(tmp_path / "repository")


def forced(repository: Repository, stage: str) -> Finished:
    """The stage once more, as where its code had changed."""
    return repository.run("dvc", "repro", "--force", "--single-item", stage)


def verify(repository: Repository) -> Finished:
    return repository.run("python", "-m", "stages.verify")


def assert_fixed(repository: Repository, before: dict[str, str], most: set[str]) -> None:
    """`stages.verify` prints the fix; it runs no more than the given stages, and restores everything."""
    found = verify(repository)
    assert found.status == 1
    command = found.out.splitlines()[-1].removeprefix("fix it with: ")
    fixed = repository.run("bash", "-ec", command)
    assert fixed.status == 0, fixed.err
    assert ran(fixed.out) <= most
    assert repository.results() == before
    assert verify(repository).status == 0
    assert repository.git("status", "--porcelain") == ""


USED = {
    "data/model/model.safetensors": ("post-ppl", {"download@model"}),
    "data/model/config.json": ("classify@original", {"download@model"}),
    "data/model/tokenizer.json": ("baseline-ppl", {"download@model"}),
    "data/recovered/pruned/masks.bin": ("post-ppl", {"prune", "recover"}),
    "data/recovered/pruned/recipe.json": ("classify@pruned", {"prune", "recover"}),
    "data/recovered/merged_2/permutations.safetensors": ("compare@merged_2", {"shrink", "recover-others@merged_2"}),
    "data/states/window-000000.safetensors": ("post-ppl", {"baseline-ppl"}),
    "data/text/rows.parquet": ("baseline-ppl", {"download@text"}),
    "data/reviews/rows.parquet": ("classify@original", {"download@reviews"}),
    "data/predictions/perplexity/pruned.parquet": ("measure@pruned", {"post-ppl"}),
}


COPIED = ("data/model/model.safetensors", "data/recovered/pruned/masks.bin")


@pytest.mark.parametrize(("name", "linked"), [*((name, True) for name in USED), *((name, False) for name in COPIED)])
def test_in_the_workspace(repository: Repository, name: str, linked: bool) -> None:
    """With links between cache and workspace, as by default, both are damaged at once; with copies one is."""
    before = repository.results()
    if not linked:
        repository.dvc("config", "cache.type", "copy")
        repository.dvc("checkout", "--relink")
        repository.commit("Copies")
    flip_bit(repository.folder / name)
    stage, made_by = USED[name]
    finished = forced(repository, stage)
    assert finished.status != 0
    (line,) = [line for line in finished.err.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: {stage}: {Path(name).parent}")
    assert "Traceback" not in finished.err
    assert_fixed(repository, before, made_by if linked else set())


@pytest.mark.parametrize("name", [*COPIED, "data/predictions/perplexity/pruned.parquet"])
def test_in_the_cache(repository: Repository, name: str) -> None:
    """The workspace is rebuilt from a damaged cache: what it has then is refused."""
    before = repository.results()
    recovered = [path for path in (repository.folder / "data/recovered").iterdir() if not path.is_symlink()]  # in Git
    for folder in ("data/model", "data/pruned", "data/variants", *map(str, recovered), "data/text", "data/reviews"):
        repository.run("rm", "-rf", folder)
    (repository.folder / "data/predictions/perplexity/pruned.parquet").unlink()
    flip_bit(in_cache(repository, name))
    repository.dvc("checkout")
    stage, made_by = USED[name]
    finished = forced(repository, stage)
    assert finished.status != 0
    assert len([line for line in finished.err.splitlines() if line.startswith("error: ")]) == 1
    assert_fixed(repository, before, made_by)


def in_cache(repository: Repository, name: str) -> Path:
    """The object in the cache of a file that need not be in the workspace any more."""
    objects = repository.folder / ".dvc" / "cache" / "files" / "md5"
    lock = YAML(typ="safe", pure=True).load(repository.folder / "dvc.lock")["stages"]
    outs = {out["path"]: out["md5"] for stage in lock.values() for out in stage["outs"]}
    (path,) = [path for path in outs if name == path or name.startswith(path + "/")]
    digest = outs[path]
    if digest.endswith(".dir"):
        listing = json.loads((objects / digest[:2] / digest[2:]).read_text())
        digest = {entry["relpath"]: entry["md5"] for entry in listing}[name.removeprefix(path + "/")]
    return objects / digest[:2] / digest[2:]


@pytest.mark.parametrize("verified", [True, False], ids=["verify", "trusted"])
@pytest.mark.parametrize("name", COPIED)
def test_in_the_remote(repository: Repository, tmp_path: Path, name: str, verified: bool) -> None:
    """With `verify true` the remote's damage does not arrive; without, what arrives is refused."""
    remote = tmp_path / "remote"
    repository.dvc("remote", "add", "--default", "team", str(remote))
    repository.dvc("remote", "modify", "team", "verify", str(verified).lower())
    repository.commit("Share results")
    repository.dvc("push", "--run-cache")
    before = repository.results()
    broken = in_cache(repository, name).relative_to(repository.folder / ".dvc" / "cache")
    flip_bit(remote / broken)
    repository.git("clone", "-q", str(repository.folder), str(tmp_path / "colleague"))
    colleague = Repository(tmp_path / "colleague")
    pulled = colleague.run("dvc", "pull", "--run-cache")
    if verified:
        assert pulled.status != 0
        assert "Traceback" not in pulled.err
        assert not (colleague.folder / name).exists()
        made_by = USED[name][1]
        assert ran(colleague.dvc("repro")) <= made_by | LIGHT
        assert colleague.results() == before
    else:
        assert pulled.status == 0, pulled.err
        stage, made_by = USED[name]
        assert forced(colleague, stage).status != 0
        assert_fixed(colleague, before, made_by)
    assert json.loads(colleague.dvc("status", "--json")) == {}
