"""Only some blocks of the base (`compressed_n`)."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest, Materialized, OverBase
from stages.lib.weights.structure import Structure


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
        whole = model.structure
        if self.blocks[-1] >= whole.depth:
            raise UserError(
                f"the recipe keeps block {self.blocks[-1]}, {model.checkpoint.folder} has {whole.depth}; "
                "run `dvc repro`"
            )
        model.config = self._config(model.config, whole)
        part = model.structure
        in_blocks = {name for block in whole.blocks for name in block}
        new_names = {name: name for name in whole.tensors if name not in in_blocks}
        for old, new in zip(self.blocks, part.blocks, strict=True):
            new_names |= zip(whole.blocks[old], new, strict=False)
        if {new: whole.tensors[old] for old, new in new_names.items()} != part.tensors:
            raise UserError(
                f"{model.checkpoint.folder}: the blocks of {whole.model_type} differ, and a kept one does not fit in "
                "its new place; remove compressed_* from compare.variants in params.yaml"
            )
        model.weights = {new_names[name]: weight for name, weight in model.weights.items() if name in new_names}

    def _config(self, config: dict[str, Any], whole: Structure) -> dict[str, Any]:
        """The config of the model with the kept blocks only."""
        by_block = {  # such as layer_types of Qwen3
            key: [entries[block] for block in self.blocks]
            for key, entries in config.items()
            if isinstance(entries, list) and len(entries) == whole.depth and not key.endswith("_token_id")
        }
        if whole.model_type == "gpt_neo":  # its attention_layers are made anew from pairs of kinds and how often
            by_block["attention_types"] = [[by_block["attention_layers"], 1]]
        return {**config, **by_block, whole.depth_key: len(self.blocks)}
