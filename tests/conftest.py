"""Tiny models and corpora for unit tests; nothing here reaches a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "0"  # the hub tests serve their own on the loopback
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TQDM_DISABLE"] = "1"

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.lib.compute import Device

CPU = Device(torch.device("cpu"), torch.float32)
ROOT = Path(__file__).parent.parent

WORDS = [
    "the",
    "cat",
    "sat",
    "on",
    "a",
    "mat",
    "while",
    "rain",
    "fell",
    "naïve",
    "dogs",
    "ran",
    "to",
    "eat",
    "café",
    "won’t",
]


def prose(words: int, seed: int = 0) -> str:
    """Text of that many words, some of them with characters of several bytes."""
    generator = random.Random(seed)
    return " ".join(generator.choice(WORDS) for _ in range(words))


def train_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prose(2000)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def tiny_llama(**changes: Any) -> LlamaForCausalLM:
    settings: dict[str, Any] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "tie_word_embeddings": True,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": 0,
        "initializer_range": 0.2,
    }
    torch.manual_seed(1)
    return LlamaForCausalLM(LlamaConfig(**settings | changes)).eval()


def tiny_gpt2(**changes: Any) -> GPT2LMHeadModel:
    settings: dict[str, Any] = {
        "vocab_size": 320,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "initializer_range": 0.2,
    }
    torch.manual_seed(1)
    return GPT2LMHeadModel(GPT2Config(**settings | changes)).eval()


TINY = {"llama": tiny_llama, "gpt2": tiny_gpt2}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer()


@pytest.fixture(scope="session")
def tiny_folders(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> dict[str, Path]:
    """A model folder of each family, as `save_pretrained` writes them."""
    folders = {}
    for family, make in TINY.items():
        folder = tmp_path_factory.mktemp(family)
        make().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[family] = folder
    return folders


@pytest.fixture(params=list(TINY))
def tiny_folder(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Path:
    return tiny_folders[request.param]


@pytest.fixture
def original() -> Path:
    """The recipe that changes nothing."""
    return ROOT / "data" / "original"


@pytest.fixture
def corrupt() -> Callable[[Path], None]:
    """Flip one bit in the middle of a file."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return flip
