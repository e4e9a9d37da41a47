"""Normalizes a pretrained model into one folder: safetensors, config and tokenizer.

Weights are never held whole: a file of weights that needs no change is copied, and others are rewritten one by one.
"""

import copy
import re
import shutil
import tempfile
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)
from transformers.utils import GENERATION_CONFIG_NAME, logging

from stages.lib.files.errors import UserError, out_of_memory, reason_of
from stages.lib.files.hashing import write_sums
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.config import read_config
from stages.lib.weights.identifying import Placed, identify_tensors
from stages.lib.weights.module_tree import config_of, structure_of
from stages.lib.weights.shards import INDEX, WEIGHTS, Shard, open_shards, write_index
from stages.lib.weights.structure import Structure

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Of weights, as safetensors names them."""

_INFINITE = 0x7F800000

logging.set_verbosity_error()  # a user cannot act on the warnings of what is loaded here


def normalize_folder(source: Path, out: Path) -> None:
    """Write a Hugging Face model folder into `out`, in the dtype and files of its weights, tensors as config.json says.

    Tensors of several dtypes get the smallest one that holds all of them. Raises UserError if the folder is
    incomplete, damaged, quantized, without a fast tokenizer or not of a causal language model, or holds an adapter, a
    tensor that the model lacks, or weights that are not finite.
    """
    _check_files(source)
    config = read_config(source)
    if config.get("quantization_config") or config.get("compression_config"):
        raise UserError(f"{source}: is quantized; give the model in float32, float16 or bfloat16")
    structure_of(config, source)  # a model of another kind is refused as that, whatever else it lacks
    tokenizer = _read_tokenizer(source)
    shards = open_shards(source, "fetch it again")
    config, structure, placed = identify_tensors(config, source, shards)
    _check_vocabulary(tokenizer, structure, source)
    dtype = reduce(torch.promote_types, {_DTYPES[each.stored.dtype] for each in placed.values()})
    for shard in shards:
        _write_shard(shard, {name: each for name, each in placed.items() if each.shard is shard}, dtype, out)
    write_index(out)
    _write_config(config, source, structure, dtype, out)
    _finish(tokenizer, out)


def _check_files(source: Path) -> None:
    """Raise UserError for a folder of another kind, which the names of its files show."""
    if adapters := sorted(path.name for path in source.glob("adapter_*")):
        remedy = "merge it into the weights (in peft: merge_and_unload), and give the folder of the whole model"
        raise UserError(f"{source}: holds an adapter ({adapters[0]}), which would be left out; {remedy}")
    if any(source.glob("*.safetensors")):
        if not (source / WEIGHTS).is_file() and not (source / INDEX).is_file():
            raise UserError(f"{source}: holds neither {WEIGHTS} nor {INDEX}, which lists several files; add it")
        return
    if ggufs := sorted(source.glob("*.gguf")):
        raise UserError(f"{source}: holds {ggufs[0].name} but no safetensors; give the path of that file itself")
    kinds = ("pytorch_model*.bin", "*.bin", "*.pt", "*.pth", "*.ckpt")
    if pickles := [path.name for kind in kinds for path in sorted(source.glob(kind))]:
        raise UserError(
            f"{source}: holds no safetensors but {pickles[0]}, a pickle, which may run code when it is read; "
            "convert it: load the model in transformers, and save it by save_pretrained"
        )
    if (source / "config.json").is_file():
        raise UserError(f"{source}: holds no safetensors; add {WEIGHTS}")


def _read_tokenizer(source: Path) -> Any:
    """The tokenizer of a model folder. Raises UserError if it has none, or only one in Python, without offsets."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises no class of its own
        if out_of_memory(error):
            raise
        raise UserError(
            f"{source}: holds no tokenizer that can be read ({reason_of(error)}); add tokenizer.json"
        ) from None
    _check_offsets(tokenizer, source)
    # Without these files, some classes give a tokenizer that knows nothing but its special tokens.
    needed = set(tokenizer.vocab_files_names.values()) - {"tokenizer.json"} or {"tokenizer.model"}
    if not (source / "tokenizer.json").is_file() and not all((source / name).is_file() for name in needed):
        raise UserError(f"{source}: holds no tokenizer that can be read (it has no file); add tokenizer.json")
    return tokenizer


def _check_offsets(tokenizer: Any, source: Path) -> None:
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"{source}: its tokenizer, {type(tokenizer).__name__}, gives no offsets; "
            "add its tokenizer.json, or give a model with a fast tokenizer"
        )


def _check_vocabulary(tokenizer: Any, structure: Structure, source: Path) -> None:
    """Raise UserError if a token has no row in the embedding.

    Added tokens may have none, as one for images in Gemma 3: text without them never gives them.
    """
    vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
    largest, rows = max(vocabulary.values(), default=-1), structure.tensors[structure.embedding][0]
    if largest >= rows:
        raise UserError(
            f"{source}: its tokenizer gives tokens up to {largest}, the model has {rows} tokens from 0; "
            "give the model with its own tokenizer"
        )


def _write_shard(shard: Shard, placed: dict[str, Placed], dtype: torch.dtype, out: Path) -> None:
    """Write a file of weights with the tensors that are kept of it, as a copy if nothing in it changes."""
    kept = {each.name: name for name, each in placed.items()}
    if all(kept.get(name) == name and _DTYPES[stored.dtype] == dtype for name, stored in shard.tensors.items()):
        shutil.copyfile(shard.path, out / shard.path.name)
    elif kept:
        with safe_open(shard.path, framework="pt") as file:
            weights = {new: file.get_tensor(name).to(dtype) for name, new in kept.items()}
            save_file(weights, out / shard.path.name, metadata={"format": "pt"})


def _write_config(config: dict[str, Any], source: Path, structure: Structure, dtype: torch.dtype, out: Path) -> None:
    """Write the config with its defaults spelled out, and how the model generates; both as transformers saves them."""
    made = config_of(config, source)
    made.tie_word_embeddings = structure.tied
    made.dtype = str(dtype).removeprefix("torch.")
    made.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING[type(made)].__name__]
    if hasattr(made, "auto_map"):
        del made.auto_map  # as below
    made.save_pretrained(out)
    _read_generation(source).to_json_file(out / GENERATION_CONFIG_NAME, use_diff=True)


def _read_generation(source: Path) -> GenerationConfig:
    """How a model generates: without a file of its own, by what is in config.json."""
    path = source / GENERATION_CONFIG_NAME
    try:
        if path.is_file():
            return GenerationConfig.from_pretrained(source, local_files_only=True)
        return GenerationConfig.from_pretrained(
            source, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); correct it, or remove it") from None


def normalize_gguf(source: Path, out: Path) -> None:
    """Write a GGUF file's model, dequantized to float32, into `out`. Raises UserError if damaged."""
    if re.search(r"-[0-9]{5}-of-[0-9]{5}\.gguf$", source.name):
        raise UserError(f"{source}: is a part of a model; join the parts with llama-gguf-split --merge")
    tokenizer, read = _read_gguf(source)
    # The loaded config says quantized, which its weights are not, and would make saving fail.
    config = copy.copy(read.config)
    del config.quantization_config
    config.name_or_path = ""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict(), assign=True)
    model.tie_weights()
    _check_offsets(tokenizer, source)
    model.save_pretrained(out, max_shard_size="1TB")
    _check_vocabulary(tokenizer, structure_of(read_config(out), source), source)
    _finish(tokenizer, out)


def _read_gguf(source: Path) -> tuple[Any, PreTrainedModel]:
    with tempfile.TemporaryDirectory(prefix="gguf-") as folder:
        # Alone: from a folder with files of other models, some of those would be read as well.
        (Path(folder) / source.name).symlink_to(source.resolve())
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=source.name)
            model, info = AutoModelForCausalLM.from_pretrained(
                folder, gguf_file=source.name, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:  # a damaged file fails anywhere in three libraries
            if out_of_memory(error):
                raise
            reason = reason_of(error).replace(f"{folder}/", "")
            raise UserError(
                f"{source}: not a GGUF file that transformers can read ({reason}); fetch it again, or give another"
            ) from None
    if absent := sorted(map(str, info["missing_keys"] | info["mismatched_keys"])):
        raise UserError(f"{source}: lacks {absent[0]} of a {model.config.model_type}; give another file")
    return tokenizer, model


def _finish(tokenizer: Any, out: Path) -> None:
    tokenizer.init_kwargs.pop("auto_map", None)  # it names code, which is not kept
    tokenizer.save_pretrained(out)
    checkpoint = Checkpoint(out)
    for name in checkpoint.names:
        if any((bits >= _INFINITE).any() for bits in checkpoint.magnitudes(name)):
            raise UserError(f"{name} holds NaN or infinite weights; repair the model first")
    write_sums(out)
