"""A model of the study that this base cannot be made into: the recipe says why, and the study goes on without it."""

from pathlib import Path
from typing import Literal

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Kind, Materialized
from stages.lib.weights.checkpoint import Checkpoint


class LeftOut(Kind):
    """No model."""

    kind: Literal["left-out"] = "left-out"
    reason: str
    """A sentence for the report."""

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        return checkpoint

    def apply(self, model: Materialized, folder: Path) -> None:
        raise UserError(f"{folder}: there is no such model. {self.reason} Choose another one")
