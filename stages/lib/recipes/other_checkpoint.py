"""Another pretrained model, used as it is: the distilled sibling."""

from typing import Literal

from stages.lib.recipes.kind import Digest, Kind, checked_base
from stages.lib.weights.checkpoint import Checkpoint


class OtherCheckpoint(Kind):
    """Another pretrained model, normalized as the base was."""

    kind: Literal["checkpoint"] = "checkpoint"
    folder: Literal["distilled"] = "distilled"
    """Beside the base's."""
    sha256: Digest

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        return checked_base(Checkpoint(checkpoint.folder.parent / self.folder), self.sha256)
