"""Normalizes a pretrained model into one folder: safetensors, config and tokenizer."""

import copy
import json
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from stages.lib.files.errors import UserError, out_of_memory
from stages.lib.files.hashing import write_sums
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.config import read_config
from stages.lib.weights.module_tree import structure_of

DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of weights, as safetensors names them."""

_INFINITE = 0x7F800000
_MASK = ".attn.masked_bias"
"""A constant in old files of GPT-2; transformers itself overlooks the other one, `.attn.bias`."""

logging.set_verbosity_error()  # a user cannot act on the warnings of what is loaded here


def normalize_folder(source: Path, out: Path) -> None:
    """Write a Hugging Face model folder into `out`, in the dtype of its files, tensor names as the family's.

    Tensors of several dtypes get the smallest one that holds all of them. Raises UserError if the folder is
    incomplete, damaged, quantized or of an unknown family, or holds an adapter, a tensor that the model lacks, or
    weights that are not finite.
    """
    structure_of(read_config(source), source)
    if "quantization_config" in read_config(source):
        raise UserError(f"{source}: is quantized; give the model in float32, float16 or bfloat16")
    for adapter in ("adapter_config.json", "adapter_model.safetensors"):
        if (source / adapter).exists():
            raise UserError(
                f"{source}: holds an adapter ({adapter}), which would be left out; "
                "merge it into the weights (in peft: merge_and_unload), or remove it"
            )
    if not any(source.glob("*.safetensors")):
        raise UserError(f"{source}: holds no safetensors; save the model with safe_serialization first")
    try:
        AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise UserError(f"{source}/config.json: is no valid model config ({error}); correct it") from None
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: holds no tokenizer that can be read ({error}); add tokenizer.json") from None
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=_dtype_of(source), use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, StrictDataclassError) as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{source}: cannot be loaded, truncated or damaged ({error}); fetch it again") from None
    missing = sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"]))
    if missing:
        raise UserError(f"{source}: lacks {missing[0]} in the shape that its config.json says; fetch it again")
    unknown = [name for name in sorted(info["unexpected_keys"]) if not name.endswith(_MASK)]
    if unknown:
        raise UserError(
            f"{source}: holds {unknown[0]}, which the model in its config.json does not have; "
            "correct config.json, or remove the tensor"
        )
    # A head that differs from the embedding is a head of its own, whatever the config says.
    model.config.tie_word_embeddings = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    _save(model, tokenizer, out)


def _dtype_of(source: Path) -> torch.dtype:
    """The smallest dtype that holds all weights of a folder. Raises UserError for one that is not supported."""
    index = source / "model.safetensors.index.json"
    files = {"model.safetensors"}
    if not (source / "model.safetensors").is_file() and index.is_file():
        files = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    found: set[torch.dtype] = set()
    for path in (source / file for file in sorted(files)):
        with safe_open(path, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - it has no iterator
                dtype = weights.get_slice(name).get_dtype()
                if dtype in DTYPES:
                    found.add(DTYPES[dtype])
                elif dtype.startswith(("F", "C")):
                    raise UserError(f"{source}: {name} is {dtype}; save the model as float32, float16 or bfloat16")
    return reduce(torch.promote_types, found) if found else torch.float32


def normalize_gguf(source: Path, out: Path) -> None:
    """Write a GGUF file's model, dequantized to float32, into `out`. Raises UserError if damaged."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        read = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise UserError(f"{source.name}: not a GGUF file that transformers can read ({error})") from None
    # The loaded config says quantized, which its weights are not, and would make saving fail.
    config = copy.copy(read.config)
    del config.quantization_config
    config.name_or_path = ""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    _save(model, tokenizer, out)


def _save(model: PreTrainedModel, tokenizer: Any, out: Path) -> None:
    if not tokenizer.is_fast:
        raise UserError("the model's tokenizer gives no offsets; add its tokenizer.json")
    model.save_pretrained(out, max_shard_size="1TB")
    tokenizer.save_pretrained(out)
    checkpoint = Checkpoint(out)
    for name in checkpoint.names:
        if any((bits >= _INFINITE).any() for bits in checkpoint.magnitudes(name)):
            raise UserError(f"{name} holds NaN or infinite weights; repair the model first")
    write_sums(out)
