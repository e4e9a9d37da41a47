"""The known model families, and the lookup of a model folder's family."""

import json
from pathlib import Path
from typing import Any

from stages.lib.files.errors import UserError
from stages.lib.weights.family import Family
from stages.lib.weights.gpt2 import GPT2
from stages.lib.weights.llama import LLAMA

FAMILIES = {family.model_type: family for family in (GPT2, LLAMA)}


def read_config(model: Path) -> dict[str, Any]:
    """The content of a model folder's `config.json`.

    Raises UserError if there is none, or it is not JSON.
    """
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{model}: holds no config.json; give a Hugging Face model folder") from None
    except ValueError as error:
        raise UserError(f"{model}/config.json: not JSON ({error}); fetch it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{model}/config.json: not a JSON object; fetch it again")
    return config


def family_of(model: Path) -> Family:
    """The family of a model folder. Raises UserError for an architecture that no family describes."""
    model_type = read_config(model).get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(
            f"{model}: model_type {model_type!r} is not a known family ({known}); "
            "describe it in a module of stages/lib/weights"
        )
    return FAMILIES[model_type]
