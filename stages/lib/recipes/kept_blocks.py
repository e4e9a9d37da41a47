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
        number = {old: new for new, old in enumerate(self.blocks)}
        blocks = {family.inside(block, ""): number.get(block) for block in range(depth)}  # None: left out
        kept: dict[str, torch.Tensor] = {}
        for name, weight in model.weights.items():
            prefix = next((prefix for prefix in blocks if name.startswith(prefix)), None)
            if prefix is None:
                kept[name] = weight
            elif (new := blocks[prefix]) is not None:
                kept[family.inside(new, name.removeprefix(prefix))] = weight
        by_block = {  # such as layer_types of Qwen3
            key: [entries[block] for block in self.blocks]
            for key, entries in model.config.items()
            if isinstance(entries, list) and len(entries) == depth and not key.endswith("_token_id")
        }
        model.config = {**model.config, **by_block, family.depth_key: len(self.blocks)}
        model.weights = kept
