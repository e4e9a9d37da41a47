"""Pretrained models as they are: the base, or another checkpoint."""

from pathlib import Path
from typing import Literal

from stages.lib.recipes.kind import Digest, Kind, Materialized, checked_base
from stages.lib.weights.checkpoint import Checkpoint


class Original(Kind):
    """The base checkpoint as it is."""

    kind: Literal["original"] = "original"

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        _ = checkpoint.sha256  # raises if a file of the folder is damaged
        return checkpoint

    def apply(self, model: Materialized, folder: Path) -> None:
        pass


class OtherCheckpoint(Kind):
    """Another pretrained model, normalized as the base was."""

    kind: Literal["checkpoint"] = "checkpoint"
    folder: Literal["distilled"] = "distilled"
    """Beside the base's."""
    sha256: Digest

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        return checked_base(Checkpoint(checkpoint.folder.parent / self.folder), self.sha256)

    def apply(self, model: Materialized, folder: Path) -> None:
        pass
