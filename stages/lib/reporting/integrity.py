"""Finds damage in a workspace, its cache and its lock, by hashing everything again.

DVC trusts a file whose size and time have not changed. A flipped bit changes neither, so nothing here asks DVC:
files, cached objects and masks are hashed and checked against the recorded hashes.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.files.places import MODEL
from stages.lib.pruning.budgets import pruned_count
from stages.lib.recipes.masks import Pruned
from stages.lib.recipes.recipe import read_recipe
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.families import prunable_weights

if TYPE_CHECKING:
    from stages.lib.plumbing.lockfile import Lock
    from stages.lib.plumbing.settings import Prune

IGNORED = ("__pycache__",)
"""Folders that DVC ignores: .dvcignore."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. `dvc repro` fixes it once the damaged file is removed."""

    message: str
    damaged: Path | None = None


def check_locks(path: Path) -> Iterator[Finding]:
    """DVC's list of current readers and writers: DVC refuses to run if the file is truncated, even to nothing."""
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        yield Finding(f"{path} was truncated, by a full disk or a crash", path)


def check_workspace(lock: "Lock") -> Iterator[Finding]:
    """Every dependency and output of every stage against its hash in the lock."""
    outputs = {out.path: out.md5 for stage in lock.values() for out in stage.outs}
    dependencies = {(name, dep.path): dep.md5 for name, stage in lock.items() for dep in stage.deps}
    paths = sorted({*outputs, *(path for _, path in dependencies)})
    found = {path: _md5(Path(path)) for path in tqdm(paths, unit="file", desc="workspace") if Path(path).exists()}
    wrong = {path for path in paths if path not in found}
    for path in sorted(wrong):
        yield Finding(f"{path} is missing")
    for path, expected in outputs.items():
        if path in found and found[path] != expected:
            wrong.add(path)
            yield Finding(f"{path} does not match dvc.lock", Path(path))
    for (stage, path), expected in dependencies.items():
        if path not in wrong and found[path] != expected:
            wrong.add(path)
            yield Finding(f"{path} is not the version that {stage} last ran with")


def check_complete() -> Iterator[Finding]:
    """Every stage of the DAG against the lock, which a kill may have truncated at the end of an entry.

    Raises CalledProcessError if DVC cannot read its project.
    """
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=True
    )
    for stage in json.loads(status.stdout):
        yield Finding(f"dvc.lock does not list all inputs and outputs of {stage}")


def check_settings(lock: "Lock", settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Every section of params.yaml against the values that its stages last ran with."""
    for name, stage in lock.items():
        for section, used in stage.params.get("params.yaml", {}).items():
            if settings.get(section) != used:
                yield Finding(f"{section} in params.yaml has other values than {name} last ran with")


def check_cache(cache: Path) -> Iterator[Finding]:
    """Every object in DVC's cache against the MD5 that is its name."""
    objects = sorted(path for path in (cache / "files" / "md5").glob("??/*") if path.is_file())
    for path in tqdm(objects, unit="object", desc="cache"):
        if _file_md5(path) != path.parent.name + path.name.removesuffix(".dir"):
            yield Finding(f"{path} does not match the hash in its name", path)


def check_models(folders: Mapping[Path, Path | None]) -> Iterator[Finding]:
    """Each recipe against its base and its own digests, and its size against the metrics, if it has any."""
    from stages.lib.recipes.recipe import materialize, size_of  # torch is not needed before

    checkpoint = Checkpoint(MODEL)  # hashed once for all
    for folder, metrics in tqdm(folders.items(), unit="model", desc="models"):
        try:
            size = size_of(materialize(checkpoint, folder), folder)
            measured = json.loads(metrics.read_text(encoding="utf-8")) if metrics else size
        except (UserError, OSError, ValueError) as error:
            yield Finding(f"{folder} does not fit {MODEL}: {error}", folder)
            continue
        for key, value in size.items():
            if measured.get(key) != value:
                yield Finding(f"{metrics} says {key} {measured.get(key)}, the weights say {value}", metrics)


def check_pruned(folder: Path, settings: "Prune") -> Iterator[Finding]:
    """The number of weights that a recipe prunes against the one that params.yaml asks for."""
    recipe, checkpoint = read_recipe(folder).unchanged, Checkpoint(MODEL)
    wanted = pruned_count(settings, sum(map(checkpoint.size, prunable_weights(MODEL))))
    if not isinstance(recipe, Pruned) or recipe.digest[1] != wanted:
        yield Finding(f"{folder} does not prune {wanted} weights, as params.yaml asks for", folder)


def _md5(path: Path) -> str:
    """A file's or a folder's MD5, as DVC computes it: a folder's is that of its listing."""
    if path.is_file():
        return _file_md5(path)
    found = [file for file in path.rglob("*") if file.is_file() and not {*IGNORED} & {*file.parts}]
    files = {file.relative_to(path).as_posix(): file for file in found if file.suffix != ".part"}
    listing = [{"md5": _file_md5(file), "relpath": name} for name, file in sorted(files.items())]
    listed = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(listed, usedforsecurity=False).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
