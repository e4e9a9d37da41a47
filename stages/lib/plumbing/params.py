"""`params.yaml` as types: checked as a whole, unknown keys refused, before any work is done."""

from pathlib import Path

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.lib.files.errors import ParamsError
from stages.lib.plumbing.items import Distilled, Documents, Model, Reviews, Section, Text
from stages.lib.plumbing.mistakes import explain
from stages.lib.plumbing.settings import (
    Classify,
    Compare,
    Compute,
    Frontier,
    Perplexity,
    Prune,
    Recover,
    Sensitivity,
    Statistics,
    Summarize,
)

PARAMS = Path("params.yaml")


class Params(Section):
    seed: int = Field(ge=0, lt=2**32, description="a whole number from 0 to 4294967295")
    compute: Compute
    model: Model
    text: Text
    reviews: Reviews
    documents: Documents
    distilled: Distilled
    prune: Prune
    recover: Recover
    perplexity: Perplexity
    classify: Classify
    summarize: Summarize
    compare: Compare
    sensitivity: Sensitivity
    frontier: Frontier
    statistics: Statistics


def load_params(path: Path = PARAMS) -> Params:
    """Read and check the whole file.

    Raises ParamsError, with one line that names the key, its value, and the values that it takes.
    """
    try:
        # YAML 1.2 as DVC reads it: 2e-5 is a number, and a key given twice is an error.
        content = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParamsError(f"{path}: not found; run from the top of the repository") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not readable as YAML: {error}") from None
    try:
        params = Params.model_validate(content)
    except ValidationError as error:
        raise ParamsError(f"{path}: {explain(error, content, Params)}") from None
    # Read from the content, since a test checks which sections of `params` a stage reads against dvc.yaml.
    if "distilled" in content["compare"]["variants"] and content["distilled"]["source"] == "none":
        raise ParamsError(f"{path}: compare.variants: got 'distilled', but distilled.source is none; name a checkpoint")
    return params
