"""Sections of `params.yaml` for repositories of the hub: the current commit, and the SHA-256 of the files read from it.

The hub lists the SHA-256 of large files. Small ones are downloaded, checked against Git's hash, and hashed here.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetInfo, HfApi, ModelInfo
from huggingface_hub.errors import HFValidationError

from stages.lib.files.errors import ParamsError, UserError, reason_of
from stages.lib.files.hashing import sha256
from stages.lib.sources.data_files import (
    check_splits,
    choose_columns,
    class_names_in,
    columns_in,
    listed,
    split_by_names,
    split_by_patterns,
)
from stages.lib.sources.hub import MODEL_FILES, Kind, fetch_listed, one_line
from stages.lib.sources.tables import read_table

Pin = dict[str, Any]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


@dataclass(frozen=True)
class Choice:
    """What the user says of a data set, in place of what its names say."""

    config: str | None = None
    files: Mapping[str, str] = field(default_factory=dict)
    """Patterns by split."""
    columns: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()
    format: str = "table"


@dataclass(frozen=True)
class _Listing:
    """The files of a repository at one commit."""

    repo: str
    kind: Kind
    revision: str
    sizes: Mapping[str, int]
    sha256: Mapping[str, str]
    """Of large files."""

    def head(self) -> Pin:
        return {"source": "hub", "path": "data/none", "repo": self.repo, "revision": self.revision}

    def digests(self, names: Sequence[str]) -> dict[str, str]:
        small = [name for name in names if name not in self.sha256]
        paths = fetch_listed(self.repo, self.kind, self.revision, small) if small else {}
        return {name: self.sha256[name] if name in self.sha256 else sha256(paths[name]) for name in sorted(names)}


def pin_model(repo: str, revision: str) -> Pin:
    """The section for a model. Raises UserError if the hub cannot be asked, or has no weights that can be read."""
    listing = _listing(repo, "model", revision)
    return {**listing.head(), "sha256": listing.digests(_weights(listing))}


def pin_data(item: str, repo: str, revision: str, choice: Choice) -> Pin:
    """The section for a data set. Raises UserError as `pin_model` does, ParamsError if names leave a choice."""
    listing = _listing(repo, "dataset", revision)
    files = _files(item, listing, choice)
    names = [name for group in files.values() for name in group]
    smallest = min(names, key=lambda name: listing.sizes[name])  # the run downloads it anyway
    path = fetch_listed(listing.repo, "dataset", listing.revision, [smallest])[smallest]
    columns = choose_columns(item, columns_in(path), choice.columns)
    classes = {"classes": _classes(path, columns["label"], choice)} if item == "reviews" else {}
    return {
        **listing.head(),
        "sha256": listing.digests(names),
        "files": files,
        "format": choice.format,
        "columns": columns,
        **classes,
    }


def _listing(repo: str, kind: Kind, revision: str) -> _Listing:
    try:
        with one_line(repo, kind, revision, "correct the name, --as and --revision"):
            info = _ask(repo, kind, revision)
    except HFValidationError:
        raise ParamsError(f"{repo}: takes owner/name, as in the address of its page") from None
    except json.JSONDecodeError:
        raise UserError(f"{repo}: the answer is not a hub's; correct HF_ENDPOINT") from None
    assert info.sha is not None  # the hub always gives it
    siblings = info.siblings or []
    if info.gated:
        terms = "its download needs an account that has accepted its terms, and `hf auth login`"
        print(f"{info.id}: is gated; {terms}", file=sys.stderr)
    return _Listing(
        repo=info.id,
        kind=kind,
        revision=info.sha,
        sizes={sibling.rfilename: sibling.size or 0 for sibling in siblings},
        sha256={sibling.rfilename: sibling.lfs.sha256 for sibling in siblings if sibling.lfs},
    )


def _ask(repo: str, kind: Kind, revision: str) -> ModelInfo | DatasetInfo:
    if kind == "model":
        return HfApi().model_info(repo, revision=revision, files_metadata=True)
    return HfApi().dataset_info(repo, revision=revision, files_metadata=True)


def _weights(listing: _Listing) -> list[str]:
    """The files of weights that a download fetches. Raises UserError, with what to do, if there are none."""
    names = list(listing.sizes)
    if "adapter_config.json" in names:
        raise UserError(
            f"{listing.repo}: is an adapter; merge it into its base (in peft: merge_and_unload), save the model, and "
            "use source: local"
        )
    patterns = [pattern for pattern in MODEL_FILES if pattern.endswith(".safetensors")]
    weights = [name for name in names if "/" not in name and any(fnmatch(name, pattern) for pattern in patterns)]
    if weights:
        _check_index(listing, weights)
        return weights
    gguf = [name for name in names if name.endswith(".gguf")]
    if gguf:
        raise UserError(
            f"{listing.repo}: holds only GGUF files; download one ({listed(gguf)}), and give it as model.path with "
            "source: local"
        )
    others = [name for name in names if name.endswith((".safetensors", *_PICKLES))]
    raise UserError(
        f"{listing.repo}: has no model.safetensors but {listed(others) or 'no weights at all'}; convert the model "
        "first (save_pretrained), and use source: local"
    )


def _check_index(listing: _Listing, weights: Sequence[str]) -> None:
    """Raise UserError if the index lists files that a download leaves out because of their names."""
    index = "model.safetensors.index.json"
    if "model.safetensors" in weights or index not in listing.sizes:
        return
    path = fetch_listed(listing.repo, "model", listing.revision, [index])[index]
    try:
        others = set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()) - set(weights)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{listing.repo}: {index} is damaged ({reason_of(error)}); give another repository") from None
    if others:
        raise UserError(
            f"{listing.repo}: its weights are also in {listed(sorted(others))}, a name that is not downloaded; "
            "save the model anew (save_pretrained), and use source: local"
        )


def _files(item: str, listing: _Listing, choice: Choice) -> dict[str, list[str]]:
    """The files of each split. Raises as the functions of `data_files` do."""
    names = list(listing.sizes)
    if choice.files:
        files = split_by_patterns(names, choice.files)
    else:
        files, remarks = split_by_names(names, choice.config)
        for remark in remarks:
            print(f"{listing.repo}: {remark}", file=sys.stderr)
        if item == "documents" and "test" in files:
            files = {"test": files["test"]}  # nothing is fitted on documents
    check_splits(item, files)
    return files


def _classes(path: Path, column: str, choice: Choice) -> list[str]:
    """The names of the classes. Raises ParamsError, with the labels found, if neither user nor file names them."""
    classes = list(choice.classes) or class_names_in(path, column)
    if classes is None:
        labels = sorted({str(row[column]) for row in read_table(path, (column,), None)})
        raise ParamsError(
            f"{path.name} does not name its classes, only the labels {listed(labels)}; name the classes with "
            "--classes NAME,NAME, in the order of their numbers if the labels are numbers"
        )
    return classes
