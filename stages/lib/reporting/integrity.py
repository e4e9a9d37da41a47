"""What is wrong in a workspace, its cache and its lock, found by hashing everything again.

DVC trusts a file whose size and time have not changed. A flipped bit changes neither, so nothing
here asks DVC: files, cached objects and masks are hashed and held against what names them.
"""

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.recipes.counts import count, count_pruned
from stages.lib.files.errors import UserError
from stages.lib.weights.families import prunable_weights
from stages.lib.plumbing.lockfile import Lock
from stages.lib.plumbing.params import Params
from stages.lib.recipes.recipe import Pruned, check_base, read_recipe, unchanged


@dataclass(frozen=True)
class Finding:
    """Something that is not as it has to be. `dvc repro` mends it once what is damaged is gone."""

    what: str
    damaged: Path | None = None


def check_locks(path: Path) -> Iterator[Finding]:
    """DVC's list of who reads and writes what: DVC stops at one that is cut off, be it to nothing."""
    try:
        json.loads(path.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        yield Finding(f"{path} was cut off, by a full disk or a crash", path)


def check_workspace(lock: Lock) -> Iterator[Finding]:
    """Every dependency and output of every stage against its hash in the lock."""
    outputs = {out.path: out.md5 for stage in lock.values() for out in stage.outs}
    dependencies = {(name, dep.path): dep.md5 for name, stage in lock.items() for dep in stage.deps}
    paths = sorted({*outputs, *(path for _, path in dependencies)})
    found = {path: _md5(Path(path)) for path in tqdm(paths, unit="file", desc="workspace") if Path(path).exists()}
    wrong = {path for path in paths if path not in found}
    for path in sorted(wrong):
        yield Finding(f"{path} is not there")
    for path, expected in outputs.items():
        if path in found and found[path] != expected:
            wrong.add(path)
            yield Finding(f"{path} is not what dvc.lock says", Path(path))
    for (stage, path), expected in dependencies.items():
        if path not in wrong and found[path] != expected:
            wrong.add(path)
            yield Finding(f"{path} is not what {stage} last ran with")


def check_complete() -> Iterator[Finding]:
    """Every stage of the DAG against the lock: a kill may have cut it off where an entry ended.

    Raises CalledProcessError if DVC cannot read its project.
    """
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=True
    )
    for stage in json.loads(status.stdout):
        yield Finding(f"dvc.lock does not hold all of what {stage} last read and made")


def check_settings(lock: Lock, settings: Mapping[str, Any]) -> Iterator[Finding]:
    """Every section of params.yaml against what its stages last ran with."""
    for name, stage in lock.items():
        for section, used in stage.params.get("params.yaml", {}).items():
            if settings.get(section) != used:
                yield Finding(f"{section} in params.yaml is not what {name} last ran with")


def check_cache(cache: Path) -> Iterator[Finding]:
    """Every object in DVC's cache against the MD5 that is its name."""
    objects = sorted(path for path in (cache / "files" / "md5").glob("??/*") if path.is_file())
    for path in tqdm(objects, unit="object", desc="cache"):
        if _file_md5(path) != path.parent.name + path.name.removesuffix(".dir"):
            yield Finding(f"{path} is not what its name says", path)


def check_pruned(params: Params, model: Path, recipe: Path, metrics: Path) -> Iterator[Finding]:
    """The recipe against its base: the base's hash, the mask's, k, and the effective parameters."""
    try:
        pruned = read_recipe(recipe)
        chosen = unchanged(pruned)
        assert isinstance(chosen, Pruned)
        checkpoint = Checkpoint(model)
        check_base(chosen, checkpoint)
        counts = count(checkpoint, prunable_weights(model))
        zeros, effective = count_pruned(pruned, recipe, checkpoint, counts)  # checks the masks' digest, too
        measured = json.loads(metrics.read_text(encoding="utf-8"))
    except (UserError, OSError, ValueError) as error:
        yield Finding(f"{recipe} cannot be held against {model}: {error}", recipe)
        return
    found = {
        "pruned_weights": params.prune.pruned_of(counts.prunable),
        "total_parameters": counts.total,
        "prunable_weights": counts.prunable,
        "effective_parameters": effective,
    }
    for key, value in found.items():
        if measured.get(key) != value:
            yield Finding(f"{metrics} says {key} {measured.get(key)}, the weights say {value}", metrics)
    if zeros != found["pruned_weights"]:
        yield Finding(f"{recipe} prunes {zeros}, params.yaml asks for {found['pruned_weights']}", recipe)


def check_models(folders: Mapping[Path, Path | None], model: Path) -> Iterator[Finding]:
    """Each recipe against its base and against what must come out, and its counts, where metrics have them."""
    from stages.lib.recipes.materialize import materialize  # torch is not needed for all that comes before

    checkpoint = Checkpoint(model)  # hashed once for all
    for folder, metrics in tqdm(folders.items(), unit="model", desc="models"):
        try:
            made = materialize(checkpoint, folder)
            measured = json.loads(metrics.read_text(encoding="utf-8")) if metrics else None
        except (UserError, OSError, ValueError) as error:
            yield Finding(f"{folder} cannot be held against {model}: {error}", folder)
            continue
        if measured is None:
            continue
        for key, value in made.counts().items():
            if measured.get(key) != value:
                yield Finding(f"{metrics} says {key} {measured.get(key)}, the weights say {value}", metrics)


def _md5(path: Path) -> str:
    """A file's or a folder's MD5, as DVC makes it: a folder's is that of its listing."""
    if path.is_file():
        return _file_md5(path)
    files = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.is_file()}
    listing = [{"md5": _file_md5(file), "relpath": name} for name, file in sorted(files.items())]
    listed = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(listed, usedforsecurity=False).hexdigest() + ".dir"


def _file_md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
