"""Reads the `config.json` of a model folder."""

import json
from pathlib import Path
from typing import Any

from stages.lib.files.errors import UserError


def read_config(model: Path) -> dict[str, Any]:
    """The content of a model folder's `config.json`. Raises UserError if there is none, or it is not JSON."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8-sig"), object_hook=_as_float)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{model}: holds no config.json; give a Hugging Face model folder") from None
    except ValueError as error:
        raise UserError(f"{model}/config.json: not JSON ({error}); fetch it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{model}/config.json: not a JSON object; fetch it again")
    return config


def _as_float(found: dict[str, Any]) -> Any:
    """The number that transformers writes as an object, since JSON has no infinity."""
    return float(found["__float__"]) if found.keys() == {"__float__"} else found
