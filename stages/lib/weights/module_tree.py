"""Reads the structure of a checkpoint from the model's own module tree, which its config alone gives.

The model is built on the meta device, where tensors have shapes and no content: 70 billion parameters take no memory.
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers import __version__ as version
from transformers.core_model_loading import revert_weight_conversion
from transformers.pytorch_utils import Conv1D

from stages.lib.files.errors import UserError, reason_of
from stages.lib.weights.feed_forward import feed_forwards_of
from stages.lib.weights.stored_names import StoredWeight, stored_weights
from stages.lib.weights.structure import Matrix, Structure

_NEEDED = "a decoder such as GPT-2, Llama, Qwen or Mixtral is needed"
_ROUTERS = frozenset({"gate", "router", "modality_router", "prediction_coefs", "correction_coefs"})
"""Names of the layers that choose experts or mix predictions, where these are `Linear`."""
_RECURRENT = frozenset(
    {"dt_proj", "in_proj_ba", "in_proj_a", "in_proj_b", "a_proj", "b_proj", "fgate_preact", "igate_preact"}
)
"""Names of the layers that make the step size, decay or gates of a recurrence, as in Mamba or gated delta networks."""

_UNKNOWN = "neither a linear layer nor experts of a known layout, such as the state of a recurrence"
_MOST_UNKNOWN = 0.05
"""Of all weights, the share that may be in parameters of an unknown kind; experts have more."""
_INVALID = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, ImportError, AssertionError),
    *(RuntimeError, StrictDataclassError),
)
"""What transformers raises for configs that are not valid."""


def structure_of(config: Mapping[str, Any], where: object) -> Structure:
    """The structure of the checkpoint that a `config.json` describes.

    Raises UserError, which begins with `where`, for a config that is not valid, and for a model that is not a causal
    language model or whose blocks are not one list.
    """
    return _structure(json.dumps(config, sort_keys=True), str(where))


def config_of(config: Mapping[str, Any], where: object) -> PreTrainedConfig:
    """The config object of a causal language model. Raises UserError as `structure_of` does."""
    kind = config.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise UserError(f"{where}: model_type {kind!r} is not one that transformers {version} knows; {_NEEDED}")
    try:
        made: PreTrainedConfig = AutoConfig.for_model(**config)
    except _INVALID as error:
        raise UserError(
            f"{where}: config.json does not describe a valid model ({kind}: {reason_of(error)}); correct it"
        ) from None
    if made.is_encoder_decoder:
        raise UserError(f"{where}: {kind} has an encoder and a decoder; {_NEEDED}")
    senses = any(re.search("vision|audio", part) for part in made.sub_configs)
    if senses or made.get_text_config(decoder=True) is not made:
        raise UserError(f"{where}: {kind} is more than a language model; give the model of its text part, saved alone")
    if type(made) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UserError(f"{where}: {kind} is not a causal language model of transformers; {_NEEDED}")
    return made


@lru_cache(maxsize=32)
def _structure(config: str, where: str) -> Structure:
    made = config_of(json.loads(config), where)
    try:
        with torch.device("meta"):
            model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(made)](made)
    except _INVALID as error:
        raise UserError(
            f"{where}: config.json does not describe a valid {made.model_type} ({reason_of(error)}); correct it"
        ) from None
    if any(getattr(module, name, True) is False for module in model.modules() for name in ("is_causal", "is_decoder")):
        raise UserError(f"{where}: {made.model_type} is an encoder, which reads text in both directions; {_NEEDED}")
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embedding is None:
        raise UserError(f"{where}: {made.model_type} has no token embedding, or no head; {_NEEDED}")
    try:
        return _described(model, _block_list(model))
    except ValueError as error:
        raise UserError(
            f"{where}: {error} ({made.model_type}), which is not supported; give a model of another architecture"
        ) from None


def _block_list(model: PreTrainedModel) -> str:
    """The name of the largest list of modules, one for each block. Raises ValueError if blocks are no such list."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    size = {name: sum(weight.numel() for weight in module.parameters()) for name, module in lists.items()}
    largest = max(size, key=lambda name: size[name], default="")
    depth = model.config.num_hidden_layers
    others = [name for name, module in lists.items() if len(module) == depth and not name.startswith(largest)]
    beside = any(isinstance(layer, nn.Linear | Conv1D) for name in others for layer in lists[name].modules())
    if not largest or len(lists[largest]) != depth or beside:
        raise ValueError(f"its {depth} blocks are not one list of modules")
    return largest


def _described(model: PreTrainedModel, block_list: str) -> Structure:
    """The structure of a model. Raises ValueError for one that the pipeline cannot prune."""
    stored = stored_weights(model)
    own = model.state_dict()
    roles, left_out = _roles(model, block_list), _left_out(model, block_list)
    depth = model.config.num_hidden_layers
    blocks: list[list[str]] = [[] for _ in range(depth)]
    matrices: list[list[Matrix]] = [[] for _ in range(depth)]
    for name, each in stored.items():
        if (number := _block_of(each.parameter, block_list)) is not None:
            blocks[number].append(name)
            if each.parameter in roles:
                matrices[number].append(_matrix(name, each, own[each.parameter], roles[each.parameter], number))
    if not any(matrices):
        raise ValueError("its blocks hold no linear layers")
    unknown = sum(weight.numel() for name, weight in own.items() if name not in roles and left_out[name] == _UNKNOWN)
    if unknown > _MOST_UNKNOWN * sum(each.weight.numel() for each in stored.values()):
        raise ValueError("many of its weights, such as experts, are in an unknown layout")
    names = {each.parameter: name for name, each in stored.items()}
    feed_forwards, unmerged = feed_forwards_of(model, block_list, names)
    head = model.get_output_embeddings()
    return Structure(
        model_type=model.config.model_type,
        depth_key=model.config.attribute_map.get("num_hidden_layers", "num_hidden_layers"),
        block_list=block_list,
        tensors={name: tuple(each.weight.shape) for name, each in stored.items()},
        blocks=tuple(map(tuple, blocks)),
        matrices=tuple(map(tuple, matrices)),
        left_out={name: left_out[each.parameter] for name, each in stored.items() if each.parameter not in roles},
        embedding=names[_weight_of(model, model.get_input_embeddings())],
        head=next(iter(revert_weight_conversion(model, {_weight_of(model, head): head.weight}))),
        feed_forwards=feed_forwards,
        unmerged=unmerged,
    )


def _weight_of(model: PreTrainedModel, layer: nn.Module) -> str:
    return next(f"{name}.weight" for name, module in model.named_modules() if module is layer)


def _block_of(parameter: str, block_list: str) -> int | None:
    """The number of the block that a parameter is in, None if it is in none."""
    inside = re.match(rf"{re.escape(block_list)}\.([0-9]+)\.", parameter)
    return int(inside[1]) if inside else None


def _matrix(name: str, stored: StoredWeight, whole: torch.Tensor, input_axis: int, block: int) -> Matrix:
    """A tensor of the checkpoint as a matrix; `input_axis` is that of the whole parameter."""
    weight = stored.weight
    layer, _, attribute = stored.parameter.rpartition(".")
    kind = re.split(rf"\.{block}\.", name, maxsplit=1)[-1].removesuffix(".weight")
    return Matrix(
        name=name,
        shape=tuple(weight.shape),
        input_axis=weight.stride().index(whole.stride(input_axis)),
        kind=re.sub(r"\b[0-9]+\b", "*", kind),
        layer=layer,
        parameter=attribute,
        of_experts=whole.ndim == 3,
        expert=weight.storage_offset() // whole.stride(0) if whole.ndim > weight.ndim else 0,
    )


def _roles(model: PreTrainedModel, block_list: str) -> dict[str, int]:
    """The axis of the inputs of each prunable parameter in the blocks, by name."""
    found: dict[str, int] = {}
    for layer, module in model.get_submodule(block_list).named_modules(prefix=block_list):
        if isinstance(module, nn.Linear | Conv1D):
            axis = 1 if isinstance(module, nn.Linear) else 0
            if module.weight.shape[1 - axis] > 1 and not (_ROUTERS | _RECURRENT) & set(layer.split(".")):
                found[f"{layer}.weight"] = axis
        elif is_known_experts(module):
            stacked = (name for name, weight in module.named_parameters(recurse=False) if weight.ndim == 3)
            found.update({f"{layer}.{name}": 1 if module.is_transposed else 2 for name in stacked})
    return found


def is_known_experts(module: nn.Module) -> bool:
    """Whether a module holds experts as parameters of three axes, laid out in the way of transformers."""
    return hasattr(module, "is_transposed")


def _left_out(model: PreTrainedModel, block_list: str) -> dict[str, str]:
    """By name of a parameter or buffer, why it would not be pruned if it is not the matrix of a layer."""
    reasons: dict[str, str] = {}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    for layer, module in model.named_modules():
        for name, weight in (
            *module.named_parameters(layer, recurse=False),
            *module.named_buffers(layer, recurse=False),
        ):
            if module is embedding:
                reason = "token embedding, tied to the head" if head.weight is embedding.weight else "token embedding"
            elif module is head:
                reason = "head"
            elif _block_of(name, block_list) is None:
                reason = "outside the blocks"
            elif weight.ndim < 2 or name.endswith("bias"):
                reason = "norms, biases and other vectors"
            elif isinstance(module, nn.Conv1d):
                reason = "convolution"
            elif isinstance(module, nn.Linear) and weight.shape[0] == 1:
                reason = "gate of one output"
            elif _ROUTERS & set(layer.split(".")) or hasattr(module, "top_k"):
                reason = "router"
            elif _RECURRENT & set(layer.split(".")):
                reason = "gate of a recurrence"
            else:
                reason = _UNKNOWN
            reasons.setdefault(name, reason)
    return reasons
