"""Only some blocks of the base (`compressed_n`)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from stages.lib.files.errors import UserError
from stages.lib.recipes.kind import Digest, Materialized, OverBase
from stages.lib.weights.structure import Structure

DIFFERENT = "Its blocks differ, and one that is kept does not fit in its new place."
_BY_NUMBER = ("diffllama", "minicpm3")
"""Types of models whose blocks compute with their number, or with the number of all blocks."""


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
        model.config = config_of_kept(model.config, whole, self.blocks)
        names = names_of_kept(whole, model.structure, self.blocks)
        if names is None:
            raise UserError(f"{model.checkpoint.folder}: {DIFFERENT} Run `dvc repro`")
        model.weights = {names[name]: weight for name, weight in model.weights.items() if name in names}


def config_of_kept(config: dict[str, Any], whole: Structure, blocks: Sequence[int]) -> dict[str, Any]:
    """The config of the model with some of its blocks only."""
    by_block = {  # such as layer_types of Qwen3
        key: [entries[block] for block in blocks]
        for key, entries in config.items()
        if isinstance(entries, list) and len(entries) == whole.depth and not key.endswith("_token_id")
    }
    if whole.model_type == "gpt_neo":  # its attention_layers are made anew from pairs of kinds and how often
        by_block["attention_types"] = [[by_block["attention_layers"], 1]]
    return {**config, **by_block, whole.depth_key: len(blocks)}


def names_of_kept(whole: Structure, part: Structure, blocks: Sequence[int]) -> dict[str, str] | None:
    """By name, the new names of the tensors that stay if `part` keeps these blocks; None if one does not fit in it."""
    in_blocks = {name for block in whole.blocks for name in block}
    names = {name: name for name in whole.tensors if name not in in_blocks}
    for old, new in zip(blocks, part.blocks, strict=True):
        names |= zip(whole.blocks[old], new, strict=False)  # of different lengths if they differ
    fits = {new: whole.tensors[old] for old, new in names.items()} == part.tensors
    return names if fits else None


def without_others(config: dict[str, Any], whole: Structure, blocks: Sequence[int]) -> str:
    """Why a model cannot be left with some of its blocks only, in a sentence; empty if it can."""
    if config.get("scale_attn_by_inverse_layer_idx") or whole.model_type in _BY_NUMBER:
        return "Its blocks compute with their number, which changes if others are removed."
    for key in ("layer_types", "layers_block_type"):
        kinds = config.get(key) or []
        kept = [kinds[block] for block in blocks] if len(kinds) == whole.depth else kinds
        if any(map(_attends, kinds)) and not any(map(_attends, kept)):
            return "No block that is kept attends, and transformers generates nothing without one that does."
    from stages.lib.weights.module_tree import structure_of

    try:
        part = structure_of(config_of_kept(config, whole, blocks), "")
    except UserError:
        return DIFFERENT
    return "" if names_of_kept(whole, part, blocks) is not None else DIFFERENT


def _attends(kind: str) -> bool:
    return kind in ("attention", "hybrid") or (kind.endswith("_attention") and kind != "linear_attention")
