"""Loads models that run: a base checkpoint with a recipe applied, and its tokenizer."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from inspect import signature
from typing import Any, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import GENERATION_CONFIG_NAME

from stages.lib.files.errors import UserError, out_of_memory
from stages.lib.inference.device import Device
from stages.lib.inference.tokenizing import first_tokens
from stages.lib.recipes.kind import Materialized, first_names
from stages.lib.recipes.original import Original
from stages.lib.recipes.recipe import apply
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.module_tree import config_of
from stages.lib.weights.stored_names import stored_weights
from stages.lib.weights.structure import Structure


@dataclass(frozen=True)
class Loaded:
    """A causal language model in evaluation mode, its tokenizer, and the masks of its pruned weights."""

    model: PreTrainedModel
    tokenizer: Any
    checkpoint: Checkpoint
    """Of the base, or of the other checkpoint that the weights are from."""
    structure: Structure
    """Of the model, which may have fewer blocks than the checkpoint."""
    runs_on: Device
    masks: dict[str, torch.Tensor] = field(default_factory=dict)
    """By parameter name, True where pruned; filled only on request."""

    @cached_property
    def weights(self) -> dict[str, torch.Tensor]:
        """By name in the checkpoint, each weight, in the memory of the model's parameter and without a gradient."""
        return {name: stored.weight for name, stored in stored_weights(self.model).items()}

    @cached_property
    def first_tokens(self) -> list[int]:
        """The special tokens that the tokenizer puts before a text."""
        return first_tokens(self.tokenizer)

    @property
    def first_target(self) -> int:
        """The position of the first token in a window that is predicted: one of the text, with a token before it."""
        return max(1, len(self.first_tokens))

    @property
    def body(self) -> torch.nn.Module:
        """The model without its language-model head."""
        around_blocks = self.model.get_submodule(self.structure.block_list.rpartition(".")[0])
        takes_tokens = "input_ids" in signature(around_blocks.forward).parameters
        return around_blocks if takes_tokens else cast(torch.nn.Module, self.model.base_model)

    @property
    def blocks(self) -> list[torch.nn.Module]:
        """The model's blocks, in order."""
        return list(self.model.get_submodule(self.structure.block_list))

    @property
    def device(self) -> torch.device:
        return self.runs_on.device

    @cached_property
    def width(self) -> int:
        """The number of features that the body gives per token, which may be less than its blocks give."""
        with torch.inference_mode():
            states = self.body(input_ids=torch.zeros((1, 1), dtype=torch.long, device=self.device), use_cache=False)
        return int(states.last_hidden_state.shape[-1])

    @property
    def lengths_matter(self) -> bool:
        """Whether a sequence is computed differently in a batch with longer ones: rotary positions by length."""
        ropes = getattr(self.model.config, "rope_parameters", None) or {}
        kinds = {rope.get("rope_type") for rope in (ropes, *ropes.values()) if isinstance(rope, dict)}
        return bool(kinds & {"longrope", "dynamic"})

    @property
    def context_length(self) -> int:
        """The largest number of tokens that the model takes; no limit where positions are relative, as in BLOOM."""
        for key in ("max_position_embeddings", "max_seq_len"):
            if isinstance(length := getattr(self.model.config, key, None), int):
                return length
        return sys.maxsize


def load_original(checkpoint: Checkpoint, device: Device) -> Loaded:
    """Load a base as it is. Raises UserError if it is damaged."""
    return ready(apply(Original(), checkpoint, checkpoint.folder), device)


def ready(made: Materialized, device: Device, keep_masks: bool = False) -> Loaded:
    """Load a materialized model, which may share its memory. Raises UserError if its parts do not fit together.

    A pass raises UserError if a token has no embedding.
    """
    folder = made.checkpoint.folder
    first_name = first_names(made.weights)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        config = AutoConfig.for_model(**made.config)
        model, info = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].from_pretrained(
            None,
            config=config,
            state_dict=made.weights,
            dtype=torch.float32 if device.trains else device.dtype,
            output_loading_info=True,
        )
        if (folder / GENERATION_CONFIG_NAME).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    except (OSError, ValueError, RuntimeError, StrictDataclassError) as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{folder}: cannot be loaded ({error}); run `dvc repro download`") from None
    absent = sorted(info["missing_keys"])
    if absent:
        raise UserError(f"{folder}: lacks the weights {absent[0]}; run `dvc checkout` or `dvc repro`")
    _share(model, first_name)
    model.to(device.device).eval()
    model.get_input_embeddings().register_forward_pre_hook(_check_tokens)
    masks = {name: mask.to(device.device) for name, mask in made.masks.items()} if keep_masks else {}
    return Loaded(model, tokenizer, made.checkpoint, made.structure, device, masks)


def load_head(checkpoint: Checkpoint, device: Device) -> Loaded:
    """Load the part of a base that makes logits of final hidden states: its body has no weights, and cannot run."""
    config = config_of(checkpoint.config, checkpoint.folder)
    with torch.device("meta"):
        model: PreTrainedModel = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config).eval()
    loaded = Loaded(model, None, checkpoint, checkpoint.structure, device)
    in_head, in_body = (
        {id(weight) for weight in part.parameters()} for part in (model.get_output_embeddings(), loaded.body)
    )
    wanted = {name for name, weight in model.named_parameters() if id(weight) in in_head or id(weight) not in in_body}
    names = {stored.parameter: name for name, stored in stored_weights(model).items() if stored.parameter in wanted}
    tensors = checkpoint.tensors(names.values())
    weights = {parameter: tensors[name].to(device.device, device.dtype) for parameter, name in names.items()}
    model.load_state_dict(weights, strict=False, assign=True)
    model.tie_weights()
    return loaded


@contextmanager
def replaced_forward(modules: Iterable[torch.nn.Module], forward: Callable[..., Any]) -> Iterator[None]:
    """Let modules compute something else during the `with` block."""
    modules = list(modules)
    for module in modules:
        module.forward = forward
    try:
        yield
    finally:
        for module in modules:
            del module.forward


@torch.inference_mode()
def check_causal(loaded: Loaded) -> None:
    """Raise UserError if a token changes the state of the one before it: such a model has no perplexity."""
    pairs = torch.tensor([[1, 2], [1, 3]], device=loaded.device)
    first, second = loaded.body(input_ids=pairs, use_cache=False).last_hidden_state[:, 0].float()
    if not torch.allclose(first, second, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"{loaded.structure.model_type} reads text in both directions; a decoder such as GPT-2 or Llama is needed"
        )


def _share(model: PreTrainedModel, first_name: Mapping[str, str]) -> None:
    """Make one parameter of those that the base has under several names; merged blocks share it in training, too."""
    if all(shared == name for name, shared in first_name.items()):
        return
    stored = stored_weights(model)
    for name, shared in first_name.items():
        if shared != name:
            layer, _, attribute = stored[name].parameter.rpartition(".")
            setattr(model.get_submodule(layer), attribute, model.get_parameter(stored[shared].parameter))


def _check_tokens(embedding: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
    rows, largest = embedding.get_parameter("weight").shape[0], int(arguments[0].max())
    if largest >= rows:
        raise UserError(
            f"the tokenizer gives token {largest}, the model has {rows} tokens from 0; "
            "give the model with its own tokenizer (model in params.yaml)"
        )
