"""Finds which tensor of a model each tensor in its files is."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from stages.lib.files.errors import UserError
from stages.lib.weights.module_tree import config_of, structure_of
from stages.lib.weights.shards import WEIGHT_DTYPES, Shard, Stored, same_bytes
from stages.lib.weights.structure import Structure


@dataclass(frozen=True)
class Placed:
    """Where a tensor of the model lies, and under which name."""

    shard: Shard
    name: str

    @property
    def stored(self) -> Stored:
        return self.shard.tensors[self.name]


def identify_tensors(
    config: Mapping[str, Any], source: Path, shards: Sequence[Shard]
) -> tuple[dict[str, Any], Structure, dict[str, Placed]]:
    """By its name in the model, where each tensor lies; before it, the config and structure that the weights ask for.

    A head that differs from the embedding is a head of its own, whatever the config says; an equal one is left out
    where the config ties them. Raises UserError for a tensor that the model does not have, lacks, or has in another
    shape, and for one that is not in float32, float16 or bfloat16.
    """
    structure = structure_of(config, source)
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config_of(config, source))]
    ignored = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    placed, unknown = _place(shards, {*structure.tensors, structure.head}, model.base_model_prefix, source)
    unknown = [each for each in unknown if not _is_constant(each, ignored)]
    _check_dtypes([*unknown, *placed.values()], source)
    if structure.tied and structure.head in placed:
        head = placed.pop(structure.head)
        embedding = placed.setdefault(structure.embedding, head)  # it may be stored as either
        if not _same(embedding, head):
            config = {**config, "tie_word_embeddings": False}
            structure = structure_of(config, source)
            placed[structure.head] = head
    _check_complete(structure, placed, unknown, source)
    return dict(config), structure, placed


def _place(
    shards: Sequence[Shard], expected: Iterable[str], prefix: str, source: Path
) -> tuple[dict[str, Placed], list[Placed]]:
    """The expected tensors, and the rest. Names may lack the prefix of the model without its head, or have one more."""
    wanted = set(expected)
    placed: dict[str, Placed] = {}
    rest: list[Placed] = []
    for shard in shards:
        for stored in shard.tensors:
            names = (stored, f"{prefix}.{stored}", stored.removeprefix(f"{prefix}."))
            name = next((name for name in names if name in wanted), None)
            if name is None:
                rest.append(Placed(shard, stored))
            elif name in placed:
                raise UserError(f"{source}: holds {name} as {placed[name].name} as well; remove one of them")
            else:
                placed[name] = Placed(shard, stored)
    return placed, rest


def _is_constant(tensor: Placed, ignored: Iterable[str]) -> bool:
    """Whether a tensor is no weight: a mask or frequencies of positions in old files, or what the model ignores."""
    name, axes = tensor.name, len(tensor.stored.shape)
    return (
        (axes == 4 and re.search(r"\b(attn|attention)\.(bias|causal_mask)$", name) is not None)
        or name.endswith((".masked_bias", ".rotary_emb.inv_freq"))
        or any(re.search(pattern, name) for pattern in ignored)
    )


def _check_dtypes(tensors: Iterable[Placed], source: Path) -> None:
    for tensor in tensors:
        dtype = tensor.stored.dtype
        if re.search(r"\blora_", tensor.name):
            raise UserError(
                f"{source}: holds {tensor.name}, a part of an adapter; "
                "merge it into the weights (in peft: merge_and_unload), and save the model again"
            )
        if re.match("F4|F6_|F8_|I[0-9]|U[0-9]", dtype):
            raise UserError(
                f"{source}: {tensor.name} is {dtype}, as in a quantized model; "
                "give the model in float32, float16 or bfloat16"
            )
        if dtype not in WEIGHT_DTYPES:
            raise UserError(f"{source}: {tensor.name} is {dtype}; save the model as float32, float16 or bfloat16")


def _same(first: Placed, second: Placed) -> bool:
    """Whether two tensors are equal, as stored: a tied weight is written twice from the same memory."""
    return (first.stored.dtype, first.stored.shape) == (second.stored.dtype, second.stored.shape) and same_bytes(
        first.shard.bytes_of(first.name), second.shard.bytes_of(second.name)
    )


def _check_complete(
    structure: Structure, placed: Mapping[str, Placed], unknown: Sequence[Placed], source: Path
) -> None:
    unexpected = sorted(
        [*(each.name for each in unknown), *(placed[name].name for name in placed.keys() - structure.tensors)]
    )
    for name, shape in structure.tensors.items():
        if name in placed and (there := placed[name].stored.shape) != shape:
            raise UserError(f"{source}: {name} is {_by(there)}, config.json says {_by(shape)}; correct config.json")
        if name not in placed:
            others = f", and holds {unexpected[0]}, which the model does not have" if unexpected else ""
            remedy = (
                "correct config.json, or save the model anew by save_pretrained"
                if unexpected
                else "set tie_word_embeddings to true in config.json if it is the token embedding"
                if name == structure.head
                else "fetch it again"
            )
            raise UserError(f"{source}: lacks {name}, which its config.json asks for{others}; {remedy}")
    if unexpected:
        raise UserError(
            f"{source}: holds {unexpected[0]}, which the model in its config.json does not have; "
            "correct config.json, or remove the tensor"
        )


def _by(shape: Sequence[int]) -> str:
    return " × ".join(map(str, shape)) or "a number"
