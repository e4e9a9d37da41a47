"""Only some blocks of the base (`compressed_n`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest, Materialized, OverBase

if TYPE_CHECKING:
    import torch


class KeptBlocks(OverBase):
    """The base with only some of its blocks, in their order."""

    kind: Literal["kept-blocks"] = "kept-blocks"
    base_sha256: Digest
    blocks: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]

    @field_validator("blocks")
    @classmethod
    def _in_order(cls, blocks: list[int]) -> list[int]:
        if blocks != sorted(set(blocks)):
            raise ValueError("blocks are not in order")
        return blocks

    def apply(self, model: Materialized, folder: Path) -> None:
        family = model.checkpoint.family
        depth = family.depth(model.config)
        if self.blocks[-1] >= depth:
            raise UserError(
                f"the recipe keeps block {self.blocks[-1]}, {model.checkpoint.folder} has {depth}; run `dvc repro`"
            )
        prefix = (family.block + ".").format
        new = dict.fromkeys(map(prefix, range(depth))) | {prefix(old): prefix(n) for n, old in enumerate(self.blocks)}
        kept: dict[str, torch.Tensor] = {}
        for name, weight in model.weights.items():
            old = next((block for block in new if name.startswith(block)), "")
            if (now := new.get(old, "")) is not None:  # not of a block that is left out
                kept[now + name.removeprefix(old)] = weight
        model.config = {**model.config, family.depth_key: len(self.blocks)}
        model.weights = kept
