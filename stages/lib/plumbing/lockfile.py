"""`dvc.lock` as DVC writes it: the inputs and outputs of each stage, by hash."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.files.errors import UserError

LOCK = Path("dvc.lock")


class LockedFile(BaseModel):
    """A file or folder, and the MD5 by which DVC identifies it."""

    path: str
    md5: str


class LockedStage(BaseModel):
    """A stage's last inputs and outputs; `params` maps a file's name to the sections that were read."""

    deps: list[LockedFile] = []
    params: dict[str, dict[str, Any]] = {}
    outs: list[LockedFile] = []


Lock: TypeAlias = Mapping[str, LockedStage]
_STAGES = TypeAdapter(dict[str, LockedStage])


def read_lock(path: Path = LOCK) -> Lock:
    """The stages of a `dvc.lock`. Raises UserError if it is missing or damaged.

    DVC writes it in place, so a kill at that moment leaves only its beginning. DVC's run cache still has the stages
    that the rest listed.
    """
    try:
        return _STAGES.validate_python(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))["stages"])
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`") from None
    except (YAMLError, UnicodeDecodeError, KeyError, TypeError, ValidationError):
        raise UserError(f"{path}: truncated or damaged; fix it with: rm {path} && dvc repro") from None
