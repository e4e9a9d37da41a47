"""`dvc.lock` as DVC writes it: what each stage read and made, by hash."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.errors import UserError

LOCK = Path("dvc.lock")

Lock = Mapping[str, Mapping[str, Any]]


def read_lock(path: Path = LOCK) -> Lock:
    """The stages of a `dvc.lock`. Raises UserError if it is missing or damaged."""
    try:
        stages: Lock = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["stages"]
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`") from None
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError):
        raise UserError(f"{path}: damaged; `git checkout {path}` brings it back") from None
    return stages
