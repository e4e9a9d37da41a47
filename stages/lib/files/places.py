"""The paths of the folders that stages pass to each other."""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

MODEL_ITEMS = ("model", "distilled")
DATA_ITEMS = ("text", "reviews", "documents")
"""The sections of `params.yaml` that are downloaded, each into a folder of its name."""

DATA = Path("data")
NO_FILE = DATA / "none"
"""An empty file, which DVC watches in place of a file or folder that is not asked for."""
MODEL = DATA / "model"
DISTILLED = DATA / "distilled"
TEXT = DATA / "text"
REVIEWS = DATA / "reviews"
DOCUMENTS = DATA / "documents"
VARIANTS = DATA / "variants"
STATES = DATA / "checkpoints"
LOSSES = "losses.csv"
"""The loss of each step of recovery: it may lie beside any recipe, and is no part of it."""
FINAL_STATES = DATA / "states"
"""The original's, before each scored token of the text."""
PREDICTIONS = DATA / "predictions"
FRONTIER = PREDICTIONS / "frontier"
HARNESS = PREDICTIONS / "harness"
SENSITIVITY = PREDICTIONS / "sensitivity.parquet"
METRICS = Path("metrics")
REPORT = Path("report")


MeasureName: TypeAlias = Literal["perplexity", "classify", "summarize", "size"]
MEASURES: tuple[MeasureName, ...] = get_args(MeasureName)


def predictions_path(measure: MeasureName, model: str) -> Path:
    """The table of a model's predictions: its output for each item, from which all figures follow."""
    return PREDICTIONS / measure / f"{model}.parquet"


def metrics_path(measure: MeasureName, model: str) -> Path:
    """The file of the figures that follow from those predictions."""
    return METRICS / measure / f"{model}.json"


def harness_folder(model: str, task: str) -> Path:
    """The folder of what lm-evaluation-harness found of a model by a task: the tables `results` and `samples`."""
    return HARNESS / model / task


def written_recipe(name: str) -> Path:
    """The folder of a model's recipe as `prune` or `shrink` wrote it, before recovery."""
    return DATA / name if name in ("original", "pruned") else VARIANTS / name


def recipe_folder(name: str) -> Path:
    """The folder of a model's recipe as it is measured: after recovery, even if recovery has no steps."""
    return written_recipe(name) if name == "original" else DATA / "recovered" / name
