"""Normalizes a pretrained model into one folder: safetensors, config and tokenizer."""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import logging

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.families import family_of, read_config

_INFINITE = 0x7F800000

logging.set_verbosity_error()  # a user cannot act on the warnings of what is loaded here


def normalize_folder(source: Path, out: Path) -> None:
    """Write a Hugging Face model folder into `out`, in its own dtype, tensor names as the family's.

    Raises UserError if the folder is incomplete, damaged, quantized, of an unknown family, or has weights not finite.
    """
    family_of(source)
    if "quantization_config" in read_config(source):
        raise UserError(f"{source}: is quantized; give the model in float32, float16 or bfloat16")
    if not any(source.glob("*.safetensors")):
        raise UserError(f"{source}: holds no safetensors; save the model with safe_serialization first")
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{source}: holds no tokenizer that can be read ({error}); add tokenizer.json") from None
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype="auto", use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"{source}: cannot be loaded, truncated or damaged ({error}); fetch it again") from None
    missing = sorted(info["missing_keys"]) + sorted(map(str, info["mismatched_keys"]))
    if missing:
        raise UserError(f"{source}: lacks {missing[0]} in the shape that its config.json says; fetch it again")
    _save(model, tokenizer, out)


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
    family_of(out)
    checkpoint = Checkpoint(out)
    for name in checkpoint.names:
        if any((bits >= _INFINITE).any() for bits in checkpoint.magnitudes(name)):
            raise UserError(f"{name} holds NaN or infinite weights; repair the model first")
    write_sums(out)
