"""Tiny models and corpora for unit tests; nothing here reaches a network."""

import os

os.environ["HF_HUB_OFFLINE"] = "0"  # the hub tests serve their own on the loopback
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TQDM_DISABLE"] = "1"
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores, each with one
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import copy
import json
import math
import random
import runpy
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
import warm_python
from filelock import FileLock
from loopback_hub import Hub
from ruamel.yaml import YAML
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from stages.lib.figures.harness import COLUMNS as HARNESS_COLUMNS
from stages.lib.files.hashing import write_sums
from stages.lib.inference.device import Device
from stages.lib.inference.loading import Loaded, ready
from stages.lib.pruning.selection import select
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.magnitude import MagnitudePruned, Part, weights_in
from stages.lib.recipes.merged import MergedFeedForward, merge, write_permutations
from stages.lib.recipes.recipe import materialize, write_recipe
from stages.lib.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from repository import Repository

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


def train_tokenizer(vocab_size: int = 320) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([prose(2000)], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|end|>")


def framing(
    tokenizer: PreTrainedTokenizerFast, before: Sequence[str] = (), after: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """The same tokenizer, which puts special tokens before and after each text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_special_tokens([*before, *after])
    added = [(token, backend.token_to_id(token)) for token in (*before, *after)]
    backend.post_processor = processors.TemplateProcessing(single=[*before, "$A", *after], special_tokens=added)
    ends = after[-1] if after else tokenizer.eos_token
    named = {"bos_token": before[0]} if before else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=ends, pad_token=ends, **named)


def enclosing(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same tokenizer, which puts `<s>` before each text and `</s>` after it."""
    return framing(tokenizer, ["<s>"], ["</s>"])


def speaking(
    tokenizer: PreTrainedTokenizerFast, template: str | dict[str, str], tokens: Sequence[str]
) -> PreTrainedTokenizerFast:
    """The same tokenizer with a chat template and its special tokens, of which none is the end of text."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.add_special_tokens([*tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", pad_token="<|end|>", chat_template=template
    )


def document_rows(texts: Sequence[str]) -> pd.DataFrame:
    """Documents to summarize, named by their numbers."""
    return pd.DataFrame({"document": map(str, range(len(texts))), "text": texts, "summary": "a cat"})


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="number of runs killed at random moments (default: 10)")
    parser.addoption(
        "--kill-seed", type=int, help="seed for the stages killed and the moments of kills (default: from the commit)"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = [
        report for outcome in ("passed", "failed", "error") for report in terminalreporter.stats.get(outcome, [])
    ]
    if any("test_kills.py" in report.nodeid for report in reports):
        terminalreporter.write_line(f"kills were drawn with --kill-seed={config.getoption('kill_seed')}")


def pytest_configure(config: pytest.Config) -> None:
    """In the controlling process, make the folder that all workers share and start the server."""
    if config.getoption("kill_seed") is None:
        config.option.kill_seed = seed_of_commit()
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    stack = ExitStack()
    config.add_cleanup(stack.close)
    shared = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pruning-tests-")))
    if len(str(shared)) > 90:  # a socket's path has 107 bytes at most
        raise pytest.UsageError(f"{shared} is too long for the path of a socket; set a shorter TMPDIR")
    os.environ["SHARED_BY_TESTS"] = str(shared)
    os.environ["HF_DATASETS_CACHE"] = str(shared / "datasets")  # read on import; the user's own stays as it is
    stack.enter_context(warm_python.started(shared, os.environ))


def seed_of_commit() -> int:
    """The first six digits of the commit's hash, as a number; 0 outside a Git repository."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(head.stdout[:6] or "0", 16)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files that start many processes first; the short ones at the end keep the workers evenly loaded."""
    long = {item.path for item in items if {"finished_repository", "hub"} & {*getattr(item, "fixturenames", ())}}
    items.sort(key=lambda item: item.path not in long)


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
        write_sums(folder)
        folders[family] = folder
    return folders


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    """A small hub on the loopback, without repositories."""
    hub = Hub({})
    yield hub
    hub.close()


@pytest.fixture(params=list(TINY))
def tiny_folder(request: pytest.FixtureRequest, tiny_folders: dict[str, Path]) -> Path:
    return tiny_folders[request.param]


def magnitude_recipe(base: Path, k: int, part: Part = "blocks") -> MagnitudePruned:
    """The recipe that prunes the k smallest magnitudes of a part of a base."""
    checkpoint = Checkpoint(base)
    return MagnitudePruned.at(checkpoint, part, select(checkpoint, weights_in(part, checkpoint), k))


def load(base: Path, recipe: Path, device: Device, keep_masks: bool = False) -> Loaded:
    """A base model folder with a recipe folder applied to it, ready to run."""
    return ready(materialize(Checkpoint(base), recipe), device, keep_masks)


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


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


TINY_PARAMS: dict[str, Any] = {
    "seed": 0,
    "compute": {"device": "cpu", "dtype": "float32", "threads": 1},
    "prune": {
        "method": "magnitude",
        "scope": "auto",
        "budget": "uniform",
        "update": "none",
        "shots": 1,
        "sparsity": 0.3,
        "calibration_tokens": 64,
    },
    "recover": {
        "steps": 0,
        "learning_rate": 1e-3,
        "blocks_learning_rate": 2e-3,
        "tokens_per_step": 32,
        "objective": "distill",
        "weights": "all",
    },
    "perplexity": {"context": 64, "stride": 32, "batch_size": 2},
    "classify": {
        "mode": "head",
        "train_examples": 20,
        "test_examples": 20,
        "max_tokens": 32,
        "batch_size": 8,
        "regularization": 1.0,
        "learning_rate": 0.001,
        "epochs": 1,
    },
    "summarize": {
        "examples": 6,
        "order": "shuffled",
        "prompt": "auto",
        "instruction": "Summarize: {document}",
        "cue": "\n\nTL;DR:",
        "max_new_tokens": 8,
        "num_beams": 1,
        "no_repeat_ngram_size": 0,
        "batch_size": 4,
    },
    "compare": {"variants": ["merged_2", "compressed_2"], "calibration_tokens": 64, "tied_head_sparsity": 0.51},
    "sensitivity": {"sparsities": [0, 0.3, 0.6], "alone": 0.3, "tokens": 128},
    "frontier": {"methods": [], "sparsities": [0.3, 0.6], "steps": 3},
    "harness": {
        "models": [],
        "tasks": ["mine"],
        "path": "data/none",
        "shots": 0,
        "limit": 0,
        "batch_size": 2,
    },
    "statistics": {"resamples": 400},
    "model": {"source": "local", "path": "mine/model"},
    "distilled": {"source": "none", "path": "data/none", "reason": "There is none, it is a test."},
    "text": {"source": "local", "path": "mine/text.txt", "test_share": 0.7},
    "reviews": {"source": "local", "path": "mine/reviews.jsonl"},
    "documents": {"source": "local", "path": "mine/documents.jsonl"},
}


ROLLING_TASK = """
task: lines
tag: mine
dataset_path: text
dataset_kwargs: {data_files: {test: mine/text.txt}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: text
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]
"""
"""A task of the harness, as a file of one's own: the text of the tiny project, line by line."""


DEPTH_KEY = {"llama": "num_hidden_layers", "gpt2": "n_layer"}
"""By family, the key of the config that holds the number of blocks."""


def keep_blocks(base: Path, blocks: list[int], folder: Path) -> Path:
    """The recipe that keeps some of a base's blocks."""
    folder.mkdir()
    write_recipe(KeptBlocks(base_sha256=Checkpoint(base).sha256, blocks=blocks), folder)
    return folder


def merged_by_three(base: Path, folder: Path) -> Path:
    """The recipe that merges three of a base's four blocks, in random orders of their neurons."""
    folder.mkdir()
    structure = Checkpoint(base).structure
    neurons = structure.feed_forwards[0].neurons
    orders = {block: np.random.default_rng(block).permutation(neurons).astype(np.uint16) for block in (1, 2)}
    digest = merge(load_file(base / "model.safetensors"), structure, 3, False, orders)
    write_permutations(orders, folder)
    recipe = MergedFeedForward(base_sha256=Checkpoint(base).sha256, n=3, anchor_only=False, merged_sha256=digest)
    write_recipe(recipe, folder)
    return folder


def feed_forwards(base: Path) -> list[list[str]]:
    """The names of each merged tensor in the three blocks."""
    by_block = [each.tensors for each in Checkpoint(base).structure.feed_forwards[:3]]
    return [[tensor.name for tensor in tensors] for tensors in zip(*by_block, strict=True)]


SENSITIVITY = {
    "sparsities": pd.DataFrame({"sparsity": [0.3], "items": [40]}),
    "matrices": pd.DataFrame(
        {
            "matrix": ["up_proj", "v_proj"],
            "pruned_weights": [8_000_000, 1_000_000],
            "ratio": [1.3, 1.05],
            "ratio_low": [1.2, 1.04],
            "ratio_high": [1.4, 1.06],
            "nats_per_million": [math.log(1.3) / 8, math.log(1.05)],
            "items": [40, 40],
        }
    ),
    "blocks": pd.DataFrame({"block": [0], "items": [40]}),
}
"""Tables of sensitivity, as far as the report's text reads them."""

HARNESS = pd.DataFrame(
    [
        ("original", "choices", "acc", True, 0.5, 0.05, 100, "0.4.13", math.nan, math.nan, math.nan),
        ("pruned", "choices", "acc", True, 0.4, 0.049, 100, "0.4.13", 0.2, 0.13, 0.29),
    ],
    columns=HARNESS_COLUMNS,
)
"""A table of the harness."""


def write_params(folder: Path, params: Mapping[str, Any]) -> None:
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        yaml = YAML(typ="safe", pure=True)
        yaml.default_flow_style = False  # as `dvc exp run -S` leaves lists
        yaml.dump(dict(params), file)


def changed_params(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tiny params with changes by dotted key; None removes the key."""
    params = copy.deepcopy(TINY_PARAMS)
    for key, value in changes.items():
        *sections, last = key.split(".")
        target = params
        for section in sections:
            target = target[section]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return params


def make_project(folder: Path, model: Path) -> None:
    """A project around a tiny local model and local data: params, data, code and DAG."""
    mine = folder / "mine"
    shutil.copytree(model, mine / "model")
    lines = [prose(40, seed) for seed in range(10)]
    (mine / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    write_jsonl(
        mine / "reviews.jsonl",
        [{"text": prose(5 + row % 7, row), "label": "positive" if row % 2 else "negative"} for row in range(50)],
    )
    write_jsonl(
        mine / "documents.jsonl",
        [{"text": prose(20 + row, row) + ". " + prose(9, row), "summary": prose(6, row + 100)} for row in range(8)],
    )
    shutil.copytree(ROOT / ".dvc" / "plots", folder / ".dvc" / "plots")
    shutil.copytree(ROOT / "stages", folder / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "dvc.yaml",
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "data/.gitignore",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)
    shutil.copyfile(ROOT / "data" / "none", folder / "data" / "none")
    shutil.copytree(ROOT / "data" / "original", folder / "data" / "original")
    (folder / "data" / "recovered").mkdir()
    (folder / "data" / "recovered" / "original").symlink_to("../original")
    write_params(folder, TINY_PARAMS)


@pytest.fixture
def project(tmp_path: Path, tiny_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny project, and the current folder; nothing has been run in it."""
    make_project(tmp_path, tiny_folders["llama"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Finished:
    """What a command left: its exit status and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture
def run_stage(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Run `python -m stages.<name>` in this process, where the heavy imports are paid already."""

    def run(name: str, *arguments: str) -> Finished:
        monkeypatch.setattr(sys, "argv", [f"stages.{name}", *arguments])
        capfd.readouterr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # runpy's, about a module that is loaded already
            try:
                runpy.run_module(f"stages.{name}", run_name="__main__")
                status = 0
            except SystemExit as left:
                status = left.code if isinstance(left.code, int) else 1
        return Finished(status, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def finished_repository(tiny_folders: dict[str, Path]) -> "Repository":
    """The tiny project after its first `dvc repro`, committed; one for all test processes. Work on a copy of it."""
    from repository import ALL, Repository, ran

    folder = Path(os.environ["SHARED_BY_TESTS"]) / "finished"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            shutil.rmtree(folder.with_suffix(".part"), ignore_errors=True)  # another worker's failure
            repository = Repository.create(folder.with_suffix(".part"), tiny_folders["llama"])
            output = repository.dvc("repro")
            assert ran(output) == ALL
            assert "# What did pruning cost?" in output
            repository.commit("Results")
            assert repository.git("status", "--porcelain") == ""
            repository.folder.rename(folder)
    return Repository(folder)
