"""`python -m stages.verify` finds every kind of damage, and what it says to run mends it."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Finished
from repository import ALL, Repository

from stages.lib.files.errors import UserError
from stages.lib.plumbing.lockfile import read_lock


@pytest.fixture
def repository(finished_repository: Repository, tmp_path: Path) -> Repository:
    return finished_repository.copy(tmp_path / "repository")


def verify(repository: Repository) -> Finished:
    return repository.run("python", "-m", "stages.verify")


def flip_bit(path: Path) -> None:
    """As a disk does it: the file's size and time stay as they were."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    with path.open("r+b") as file:  # in place, so every link to it is damaged
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def in_cache(repository: Repository, name: str) -> Path:
    content = (repository.folder / name).read_bytes()
    digest = hashlib.md5(content).hexdigest()
    return repository.folder / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.unlink()  # another file, not a change of what the cache has under another name
    path.write_text(text.replace(old, new))


def test_all_good(repository: Repository) -> None:
    assert verify(repository) == Finished(
        0, "all good: workspace, cache and lock agree, and all weights are those of their recipes\n", ""
    )


DAMAGES: dict[str, tuple[Callable[[Repository], None], str]] = {
    "model": (
        lambda r: flip_bit(r.folder / "data/model/model.safetensors"),
        "data/model is not what dvc.lock says",
    ),
    "cache": (
        lambda r: flip_bit(in_cache(r, "metrics/prune.json")),  # Git's file is another copy
        "is not what its name says",
    ),
    "predictions": (
        lambda r: flip_bit(r.folder / "data/predictions/post_ppl.parquet"),
        "data/predictions/post_ppl.parquet is not what dvc.lock says",
    ),
    "variant": (
        lambda r: flip_bit(r.folder / "data/variants/merged_2/permutations.safetensors"),
        "data/variants is not what dvc.lock says",
    ),
    "recipe gone": (
        lambda r: (r.folder / "data/pruned/recipe.json").unlink(),
        "data/pruned is not what dvc.lock says",
    ),
    "metrics": (
        lambda r: edit(r.folder / "metrics/prune.json", '"sparsity": 0.3', '"sparsity": 0.2'),
        "metrics/prune.json is not what dvc.lock says",
    ),
    "metrics gone": (lambda r: (r.folder / "metrics/post_ppl.json").unlink(), "metrics/post_ppl.json is not there"),
    "report": (lambda r: edit(r.folder / "report/report.md", "pruning", "prunning"), "report/report.md is not what"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_and_mended(repository: Repository, damage: Callable[[Repository], None], says: str) -> None:
    before = repository.results()
    damage(repository)
    found = verify(repository)
    assert (found.status, found.err) == (1, "")
    *problems, remedy = found.out.splitlines()
    assert any(says in problem for problem in problems)
    command = remedy.removeprefix("mend it with: ")
    assert command != remedy
    mended = repository.run("bash", "-ec", command)
    assert mended.status == 0, mended.err
    assert verify(repository).status == 0
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def test_what_has_changed_since_the_last_run(repository: Repository) -> None:
    edit(repository.folder / "params.yaml", "sparsity: 0.3", "sparsity: 0.2")
    edit(repository.folder / "stages/prune.py", "Choose", "Pick")
    found = verify(repository)
    assert found.status == 1
    assert "prune in params.yaml is not what prune last ran with" in found.out
    assert "stages/prune.py is not what prune last ran with" in found.out
    assert found.out.splitlines()[-1] == "mend it with: dvc repro"


def test_a_recipe_that_its_weights_contradict(repository: Repository) -> None:
    """Cache, lock and workspace agree with each other, and all are wrong."""
    recipe = repository.folder / "data/pruned/recipe.json"
    digest = json.loads(recipe.read_text())["mask_sha256"]
    edit(recipe, digest, "0" * 64)
    repository.dvc("commit", "--force", "prune", "recover", "post-ppl", "classify@pruned", "summarize@pruned", "report")
    found = verify(repository)
    assert found.status == 1
    problem, remedy = found.out.splitlines()
    assert "data/pruned cannot be held against data/model: data/pruned: the mask is not the recipe's" in problem
    assert remedy == "mend it with: rm -rf data/pruned && dvc repro"


def test_a_variant_that_its_weights_contradict(repository: Repository) -> None:
    recipe = repository.folder / "data/variants/merged_2/recipe.json"
    digest = json.loads(recipe.read_text())["merged_sha256"]
    edit(recipe, digest, "0" * 64)
    counts = json.loads((repository.folder / "metrics/compare/compressed_2.json").read_text())
    edit(repository.folder / "metrics/compare/compressed_2.json", str(counts["total_parameters"]), "7")
    others = [f"{stage}@{name}" for stage in ("recover-others", "compare") for name in ("merged_2", "compressed_2")]
    repository.dvc("commit", "--force", "shrink", *others, "report")
    found = verify(repository)
    assert found.status == 1
    assert "data/variants/merged_2 cannot be held against data/model: data/variants/merged_2: the average" in found.out
    assert f"says total_parameters 7, the weights say {counts['total_parameters']}" in found.out


def test_metrics_that_the_weights_contradict(repository: Repository) -> None:
    counts = json.loads((repository.folder / "metrics/prune.json").read_text())
    edit(repository.folder / "metrics/prune.json", str(counts["effective_parameters"]), "7")
    repository.dvc("commit", "--force", "prune", "report")
    found = verify(repository)
    assert found.status == 1
    assert f"says effective_parameters 7, the weights say {counts['effective_parameters']}" in found.out


@pytest.mark.parametrize("content", [None, b"", b"stages: [", b"\xff"])
def test_no_lock(repository: Repository, content: bytes | None) -> None:
    lock = repository.folder / "dvc.lock"
    lock.unlink()
    if content is not None:
        lock.write_bytes(content)
    found = verify(repository)
    assert (found.status, found.out) == (1, "")
    (line,) = found.err.splitlines()
    assert line.startswith("error: verify: dvc.lock: ")


def test_a_lock_cut_off_anywhere(finished_repository: Repository, tmp_path: Path) -> None:
    """The beginning of a lock is read as what it holds, or refused in a line: no other error comes."""
    content = (finished_repository.folder / "dvc.lock").read_bytes()
    beginning = tmp_path / "dvc.lock"
    sizes = range(0, len(content), len(content) // 50)
    read = 0
    for size in sizes:
        beginning.write_bytes(content[:size])
        try:
            lock = read_lock(beginning)
        except UserError as error:
            assert str(error).endswith(f"cut off or damaged; mend it with: rm {beginning} && dvc repro")
        else:
            read += 1
            assert set(lock) <= ALL
    assert 0 < read < len(sizes)
