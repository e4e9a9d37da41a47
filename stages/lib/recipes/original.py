"""The base checkpoint as it is."""

from typing import Literal

from stages.lib.recipes.kind import Kind
from stages.lib.weights.checkpoint import Checkpoint


class Original(Kind):
    """The base checkpoint as it is."""

    kind: Literal["original"] = "original"

    def base(self, checkpoint: Checkpoint) -> Checkpoint:
        _ = checkpoint.sha256  # raises if a file of the folder is damaged
        return checkpoint
