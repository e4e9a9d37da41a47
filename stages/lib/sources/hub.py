"""Files of one commit of a Hugging Face repository (`HF_ENDPOINT` names another hub)."""

import glob
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from httpx2 import HTTPError
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import sha256

if TYPE_CHECKING:
    from stages.lib.plumbing.items import Hub, HubFiles

Kind: TypeAlias = Literal["model", "dataset"]

# Weights as safetensors only; pickles and code are not downloaded.
MODEL_FILES = [
    *("config.json", "generation_config.json", "chat_template.jinja"),
    *("model.safetensors", "model-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model"),
    *("vocab.json", "merges.txt"),
]

_WORDS = {"model": "model", "dataset": "data set"}


def fetch_model(item: "Hub") -> Path:
    """Download a model's config, weights and tokenizer, and return their folder.

    An interrupted download resumes. Raises UserError if the hub, the revision or a pinned file cannot be had.
    """
    folder = _snapshot(item, "model", MODEL_FILES)
    weights = sorted(file.name for file in folder.glob("*.safetensors"))
    if not weights:
        raise UserError(f"{item.repo}: has no model.safetensors at {item.revision}; convert the model first")
    if unpinned := [name for name in weights if name not in item.sha256]:
        others = f", nor {len(unpinned) - 1} more of its {len(weights)} files of weights" if len(unpinned) > 1 else ""
        raise UserError(
            f"{item.repo}: {unpinned[0]} is not pinned{others}; add its sha256 to model.sha256 in params.yaml"
        )
    _verify(item, folder)
    return folder


def fetch_files(item: "HubFiles") -> dict[str, list[Path]]:
    """Download a data set's files, and return their paths by split. Raises as `fetch_model` does.

    The revision, a commit hash, pins every file's content; `sha256` pins single files a second time.
    """
    names = [name for group in item.files.values() for name in group]
    folder = _snapshot(item, "dataset", [glob.escape(name) for name in names])
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{item.repo}: has no {missing[0]} at {item.revision}; correct `files` in params.yaml")
    _verify(item, folder)
    return {split: [folder / name for name in group] for split, group in item.files.items()}


def fetch_listed(repo: str, kind: Kind, revision: str, names: Sequence[str]) -> dict[str, Path]:
    """Download files of a commit that nothing pins yet, each checked against the hub's listing. Raises UserError."""
    with one_line(repo, kind, revision, "run again"):
        folder = Path(_download(repo, kind, revision, [glob.escape(name) for name in names]))
    paths = {name: folder / name for name in names}
    for path in paths.values():
        _check_as_listed(repo, path)
    return paths


@contextmanager
def one_line(repo: str, kind: Kind, revision: str, remedy: str) -> Iterator[None]:
    """Turn the library's errors into UserErrors; `remedy` says how to correct a repository or revision not found."""
    try:
        yield
    except (HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise  # the disk is at fault, not the hub
        cause = error if isinstance(error, HfHubHTTPError) else error.__cause__
        raise UserError(f"{repo}: {_explain(error, cause, repo, kind, revision, remedy)}") from None


def _explain(error: Exception, cause: BaseException | None, repo: str, kind: Kind, revision: str, remedy: str) -> str:
    if isinstance(cause, GatedRepoError):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        return f"is gated; accept its terms at {page}, then log in with `hf auth login`"
    status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else None
    if status in (401, 403, 404):
        missing = f"revision {revision}" if isinstance(cause, RevisionNotFoundError) else f"{_WORDS[kind]} of this name"
        return (
            f"the hub at {constants.ENDPOINT} has no public {missing} ({status}); {remedy}, or log in with "
            "`hf auth login`"
        )
    if isinstance(error, OfflineModeIsEnabled) or isinstance(cause, OfflineModeIsEnabled):
        return "the hub is not asked since HF_HUB_OFFLINE is set; unset it, or use source: local"
    return (
        f"the hub at {constants.ENDPOINT} cannot be reached; check the network, set HF_ENDPOINT to "
        "a mirror, or download the files elsewhere and use source: local"
    )


def _snapshot(item: "Hub", kind: Kind, patterns: list[str]) -> Path:
    with one_line(item.repo, kind, item.revision, "correct repo and revision in params.yaml"):
        return Path(_download(item.repo, kind, item.revision, patterns))


def _download(repo: str, kind: Kind, revision: str, patterns: list[str]) -> str:
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it retries by itself; a final failure is reported in one line
    return snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=patterns)


def _verify(item: "Hub", folder: Path) -> None:
    for name, digest in item.sha256.items():
        if not (folder / name).is_file():
            raise UserError(f"{item.repo}: has no {name} at {item.revision}; correct `sha256` in params.yaml")
        found = sha256(folder / name)
        if found != digest:
            (folder / name).resolve().unlink()  # otherwise the hub's cache would give it again and again
            raise UserError(
                f"{item.repo}: {name} has sha256 {found}, pinned is {digest}; run again, or correct the pin"
            )
    for path in folder.rglob("*"):
        pinned = str(path.relative_to(folder)) in item.sha256
        if path.is_file() and not pinned:
            _check_as_listed(item.repo, path)


def _check_as_listed(repo: str, path: Path) -> None:
    if not _is_as_listed(path):
        path.resolve().unlink()
        raise UserError(f"{repo}: {path.name} arrived damaged (it does not match the hub's listing); run again")


def _is_as_listed(path: Path) -> bool:
    """Whether a file has the content that the hub listed: the cache names it by SHA-256 or, if small, Git's hash."""
    listed = path.resolve()
    if re.fullmatch("[0-9a-f]{64}", listed.name):
        return sha256(listed) == listed.name
    if re.fullmatch("[0-9a-f]{40}", listed.name):
        content = listed.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest() == listed.name
    return True  # where the file system has no links, the cache keeps no such name
