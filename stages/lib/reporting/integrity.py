"""Finds damage in a workspace and its cache, by hashing everything again.

DVC trusts a file whose size and time have not changed. A flipped bit changes neither, so DVC is run without its
memory of earlier hashes, cached objects are checked against their names, and recipes against their models.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.files.places import MODEL
from stages.lib.pruning.budgets import pruned_count
from stages.lib.recipes.left_out import LeftOut
from stages.lib.recipes.masks import Pruned
from stages.lib.recipes.recipe import read_recipe
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Prune

LOCK = Path("dvc.lock")
RWLOCK = Path(".dvc/tmp/rwlock")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong. `dvc repro` fixes it once the damaged file is removed."""

    message: str
    damaged: Path | None = None


def check_locks() -> Iterator[Finding]:
    """DVC's lists of results and of current readers and writers: it refuses to run if one is truncated."""
    if RWLOCK.is_file():
        try:
            json.loads(RWLOCK.read_bytes())
        except ValueError:
            yield Finding(f"{RWLOCK} was truncated, by a full disk or a crash", RWLOCK)
    if not LOCK.is_file():
        raise UserError(f"{LOCK}: not found; run `dvc repro`")
    if not LOCK.read_bytes().endswith(b"\n"):  # DVC would believe what is left of the last hash
        yield Finding(f"{LOCK} was truncated, by a full disk or a crash", LOCK)


def check_cache() -> Iterator[Finding]:
    """Every object in DVC's cache against the MD5 that is its name."""
    cache = Path(_dvc("cache", "dir").stdout.strip())
    cache = cache.relative_to(Path.cwd()) if cache.is_relative_to(Path.cwd()) else cache
    objects = sorted(path for path in (cache / "files" / "md5").glob("??/*") if path.is_file())
    for path in tqdm(objects, unit="object", desc="cache"):
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != path.parent.name + path.name.removesuffix(".dir"):
            yield Finding(f"{path} does not match the hash in its name", path)


def check_workspace() -> Iterator[Finding]:
    """Every output and input of every stage, and its settings, against dvc.lock."""
    status = _dvc("status", "--json")
    if status.returncode:
        yield Finding(f"{LOCK} was truncated, by a full disk or a crash", LOCK)
        return
    changes: dict[str, list[Any]] = json.loads(status.stdout)
    wrong: set[str] = set()
    inputs: list[tuple[str, str]] = []
    for stage, parts in changes.items():
        found = {kind: paths for part in parts if isinstance(part, dict) for kind, paths in part.items()}
        deps = found.get("changed deps", {})
        if deps.get("params.yaml") == "new":  # as after a kill that truncated the lock
            yield Finding(f"{LOCK} does not list {stage}")
            continue
        for path in found.get("changed outs", {}):
            wrong.add(path)
            if not Path(path).exists():
                yield Finding(f"{path} is missing")
            else:
                yield Finding(f"{path} does not match {LOCK}", Path(path))
        for path, state in deps.items():
            names = [f"{key} in {path}" for key in state] if isinstance(state, dict) else [path]
            inputs += [(stage, name) for name in names]
    for stage, name in inputs:
        if name not in wrong:
            wrong.add(name)
            yield Finding(f"{name} has changed since {stage} last ran")


def _dvc(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a DVC command that remembers no hashes."""
    with tempfile.TemporaryDirectory(prefix="verify-") as folder:
        command = [sys.executable, "-m", "dvc", *arguments]
        environment = {**os.environ, "DVC_SITE_CACHE_DIR": folder}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def check_models(folders: Mapping[Path, Path | None]) -> Iterator[Finding]:
    """Each recipe against its base and its own digests, and its size against the metrics, if it has any."""
    from stages.lib.recipes.recipe import materialize, size_of  # torch is not needed before

    checkpoint = Checkpoint(MODEL)  # hashed once for all
    for folder, metrics in tqdm(folders.items(), unit="model", desc="models"):
        try:
            if isinstance(read_recipe(folder), LeftOut):
                continue
            size = size_of(materialize(checkpoint, folder), folder)
            measured = json.loads(metrics.read_text(encoding="utf-8")) if metrics else size
        except (UserError, OSError, ValueError) as error:
            yield Finding(f"{folder} does not fit {MODEL}: {error}", folder)
            continue
        for key, value in size.items():
            if measured.get(key) != value:
                yield Finding(f"{metrics} says {key} {measured.get(key)}, the weights say {value}", metrics)


def check_pruned(folder: Path, settings: "Prune") -> Iterator[Finding]:
    """The number of weights that a recipe prunes against the number that params.yaml asks for."""
    recipe, checkpoint = read_recipe(folder).unchanged, Checkpoint(MODEL)
    wanted = pruned_count(settings, sum(map(checkpoint.size, checkpoint.structure.prunable)))
    if not isinstance(recipe, Pruned) or recipe.pruned != wanted:
        yield Finding(f"{folder} does not prune the {wanted} weights that params.yaml asks for", folder)
