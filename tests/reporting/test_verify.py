"""`python -m stages.verify` finds every kind of damage, and the command that it prints fixes it."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Finished
from repository import Repository


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


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.unlink()  # another file, not a change of what the cache has under another name
    path.write_text(text.replace(old, new))


def test_all_good(repository: Repository) -> None:
    assert verify(repository) == Finished(
        0, "all good: workspace, cache and lock agree, and all weights match their recipes\n", ""
    )


DAMAGES: dict[str, tuple[Callable[[Repository], None], str]] = {
    "model": (
        lambda r: flip_bit(r.folder / "data/model/model.safetensors"),
        "data/model does not match dvc.lock",
    ),
    "cache": (
        lambda r: flip_bit(min((r.folder / ".dvc" / "cache" / "files" / "md5").glob("??/*.dir"))),  # a folder's listing
        "does not match the hash in its name",
    ),
    "predictions": (
        lambda r: flip_bit(r.folder / "data/predictions/perplexity/pruned.parquet"),
        "data/predictions/perplexity/pruned.parquet does not match dvc.lock",
    ),
    "variant": (
        lambda r: flip_bit(r.folder / "data/variants/merged_2/permutations.safetensors"),
        "data/variants does not match dvc.lock",
    ),
    "recipe gone": (
        lambda r: (r.folder / "data/pruned/recipe.json").unlink(),
        "data/pruned does not match dvc.lock",
    ),
    "metrics": (
        lambda r: edit(r.folder / "metrics/size/pruned.json", '"sparsity": 0.3', '"sparsity": 0.2'),
        "metrics/size/pruned.json does not match dvc.lock",
    ),
    "metrics gone": (
        lambda r: (r.folder / "metrics/size/pruned.json").unlink(),
        "metrics/size/pruned.json is missing",
    ),
    "report": (lambda r: edit(r.folder / "report/report.md", "pruning", "prunning"), "report/report.md does not match"),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damage_is_found_and_fixed(repository: Repository, damage: Callable[[Repository], None], says: str) -> None:
    before = repository.results()
    damage(repository)
    found = verify(repository)
    assert (found.status, found.err) == (1, "")
    *problems, remedy = found.out.splitlines()
    assert any(says in problem for problem in problems)
    command = remedy.removeprefix("fix it with: ")
    assert command != remedy
    fixed = repository.run("bash", "-ec", command)
    assert fixed.status == 0, fixed.err
    assert verify(repository).status == 0
    assert repository.results() == before
    assert repository.git("status", "--porcelain") == ""


def test_a_fresh_clone_lacks_what_git_does_not_hold(repository: Repository, tmp_path: Path) -> None:
    repository.git("clone", "-q", ".", str(tmp_path / "clone"))
    found = verify(Repository(tmp_path / "clone"))
    *problems, remedy = found.out.splitlines()
    assert "data/predictions/perplexity/pruned.parquet is missing" in problems
    assert not [problem for problem in problems if "does not match" in problem]
    assert remedy == "fix it with: dvc repro"


def test_what_has_changed_since_the_last_run(repository: Repository) -> None:
    edit(repository.folder / "params.yaml", "sparsity: 0.3", "sparsity: 0.2")
    edit(repository.folder / "stages/lib/pruning/prune.py", "Prunes", "Thins")
    found = verify(repository)
    assert found.status == 1
    assert "prune in params.yaml has changed since prune last ran" in found.out
    assert "stages/lib/pruning has changed since prune last ran" in found.out
    assert found.out.splitlines()[-1] == "fix it with: dvc repro"


def test_a_recipe_that_its_weights_contradict(repository: Repository) -> None:
    """Cache, lock and workspace agree with each other, and all are wrong."""
    recipe = repository.folder / "data/recovered/pruned/recipe.json"
    digest = json.loads(recipe.read_text())["mask_sha256"]
    edit(recipe, digest, "0" * 64)
    repository.dvc("commit", "--force")
    found = verify(repository)
    assert found.status == 1
    problem, remedy = found.out.splitlines()
    assert (
        "data/recovered/pruned does not fit data/model: data/recovered/pruned: the mask is not the recipe's" in problem
    )
    assert remedy == "fix it with: rm -rf data/recovered/pruned && dvc repro"


def test_a_variant_that_its_weights_contradict(repository: Repository) -> None:
    recipe = repository.folder / "data/recovered/merged_2/recipe.json"
    digest = json.loads(recipe.read_text())["merged_sha256"]
    edit(recipe, digest, "0" * 64)
    counts = json.loads((repository.folder / "metrics/size/compressed_2.json").read_text())
    edit(repository.folder / "metrics/size/compressed_2.json", str(counts["total_parameters"]), "7")
    repository.dvc("commit", "--force")
    found = verify(repository)
    assert found.status == 1
    assert "data/recovered/merged_2 does not fit data/model: data/recovered/merged_2: the average" in found.out
    assert f"says total_parameters 7, the weights say {counts['total_parameters']}" in found.out


def test_metrics_that_the_weights_contradict(repository: Repository) -> None:
    counts = json.loads((repository.folder / "metrics/size/pruned.json").read_text())
    edit(repository.folder / "metrics/size/pruned.json", str(counts["effective_parameters"]), "7")
    repository.dvc("commit", "--force")
    found = verify(repository)
    assert found.status == 1
    assert f"says effective_parameters 7, the weights say {counts['effective_parameters']}" in found.out


def test_no_lock(repository: Repository) -> None:
    (repository.folder / "dvc.lock").unlink()
    assert verify(repository) == Finished(1, "", "error: verify: dvc.lock: not found; run `dvc repro`\n")


@pytest.mark.parametrize("content", [b"", b"stages: [", b"\xff"])
def test_a_lock_that_cannot_be_read(repository: Repository, content: bytes) -> None:
    (repository.folder / "dvc.lock").write_bytes(content)
    found = verify(repository)
    assert (found.status, found.err) == (1, "")
    assert found.out.splitlines() == [
        "dvc.lock was truncated, by a full disk or a crash",
        "fix it with: rm -rf dvc.lock && dvc repro",
    ]
