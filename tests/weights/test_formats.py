"""The formats of a user's own model: files, dtypes, tied weights, paths, and those that are refused with a remedy."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pandas as pd
import pytest
import torch
from architectures import CONFIGS, tiny
from conftest import ROOT, TINY, Finished, changed_params, tiny_llama, write_params
from repository import Repository
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import sha256, write_sums
from stages.lib.files.parquet import read_table
from stages.lib.files.places import predictions_path
from stages.lib.recipes.recipe import materialize, size_of
from stages.lib.reporting import exporting
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.normalizing import normalize_folder, normalize_gguf
from stages.lib.weights.shards import INDEX, WEIGHTS

RunStage = Callable[..., Finished]

IDS = torch.arange(1, 60)[None]


def logits(folder: Path) -> torch.Tensor:
    """Those of plain transformers, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return model.eval()(input_ids=IDS).logits


def written(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def normalized(source: Path, out: Path) -> Path:
    out.mkdir()
    normalize_folder(source, out)
    return out


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Write a file of weights again, changed."""
    save_file(change({name: weight.clone() for name, weight in load_file(path).items()}), path, {"format": "pt"})


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def metadata_of(folder: Path, key: str) -> Any:
    return json.loads((folder / "config.json").read_text())[key]


def set_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture(params=list(TINY))
def sharded(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    """A model folder with several files of weights."""
    folder = written(TINY[request.param](), tokenizer, tmp_path / "sharded", max_shard_size="50KB")
    assert len(files_of(folder)) > 2
    return folder


def test_a_sharded_checkpoint_reads_as_one_file_does(
    sharded: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    out, whole = normalized(sharded, tmp_path / "out"), tmp_path / "whole"
    written(AutoModelForCausalLM.from_pretrained(sharded), tokenizer, whole)
    several, one = Checkpoint(out), Checkpoint(normalized(whole, tmp_path / "one"))
    assert sorted(several.names) == sorted(one.names)
    for name in one.names:
        assert several.shape(name) == one.shape(name)
        assert several.raw(name).tobytes() == one.raw(name).tobytes()
    tensors = several.tensors(one.names)
    assert all(torch.equal(tensors[name], weight) for name, weight in one.tensors().items())
    made = materialize(several, ROOT / "data/original")
    assert made.weights.keys() == set(one.names)
    stored = size_of(made, ROOT / "data/original")["stored_bytes"]
    assert stored == sum(path.stat().st_size for path in files_of(sharded))


def test_the_hash_of_several_files_is_that_of_their_lines_in_the_sums(sharded: Path, tmp_path: Path) -> None:
    out = normalized(sharded, tmp_path / "out")
    command = "grep '[.]safetensors$' SHA256SUMS | sha256sum"
    done = subprocess.run(["sh", "-c", command], cwd=out, capture_output=True, text=True, check=True)
    assert Checkpoint(out).sha256 == done.stdout.split()[0]
    rewrite(files_of(out)[1], lambda weights: {name: weight + 1 for name, weight in weights.items()})
    write_sums(out)
    assert Checkpoint(out).sha256 != done.stdout.split()[0]


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (Path.unlink, ": not found; restore it with `dvc repro download` or `dvc checkout`"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), ": truncated or damaged"),
    "another": (
        lambda path: rewrite(path, lambda weights: {name: weight + 1 for name, weight in weights.items()}),
        ": damaged, does not match SHA256SUMS",
    ),
}


@pytest.mark.parametrize(("damage", "says"), DAMAGES.values(), ids=DAMAGES)
def test_damage_to_one_of_several_files(
    sharded: Path, tmp_path: Path, damage: Callable[[Path], Any], says: str
) -> None:
    out = normalized(sharded, tmp_path / "out")
    damage(files_of(out)[1])
    with pytest.raises(UserError, match=re.escape(f"{files_of(sharded)[1].name}{says}")):
        assert not Checkpoint(out).sha256


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_shards_in_half_precision(dtype: torch.dtype, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    source = written(tiny_llama().to(dtype), tokenizer, tmp_path / "half", max_shard_size="30KB")
    out = normalized(source, tmp_path / "out")
    assert [sha256(path) for path in files_of(out)] == [sha256(path) for path in files_of(source)]
    assert metadata_of(out, "dtype") == str(dtype).removeprefix("torch.")


def test_only_shards_in_another_dtype_are_written_again(sharded: Path, tmp_path: Path) -> None:
    first, *others = files_of(sharded)
    rewrite(first, lambda weights: {name: weight.bfloat16() for name, weight in weights.items()})
    out = normalized(sharded, tmp_path / "out")
    assert [sha256(out / path.name) for path in others] == [sha256(path) for path in others]
    given, kept = load_file(first), load_file(out / first.name)
    assert all(torch.equal(kept[name], weight.float()) for name, weight in given.items())
    assert metadata_of(out, "dtype") == "float32"
    assert torch.equal(logits(out), logits(sharded))


@pytest.mark.parametrize("change", ["removed", "added"])
def test_names_without_the_head_around_them(
    sharded: Path, tmp_path: Path, change: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    """GPT-2 on the hub lacks the prefix `transformer.`, and its files hold the mask of attention as well."""
    prefix = {"llama": "model.", "gpt2": "transformer."}[metadata_of(sharded, "model_type")]
    for path in files_of(sharded):
        if change == "removed":
            rewrite(path, lambda weights: {name.removeprefix(prefix): weight for name, weight in weights.items()})
        else:
            rewrite(path, lambda weights: {prefix + name: weight for name, weight in weights.items()})
    mask = {f"{prefix}h.0.attn.bias": torch.ones(1, 1, 128, 128), f"{prefix}h.0.attn.masked_bias": torch.ones(())}
    rewrite(files_of(sharded)[0], lambda weights: weights | mask)
    out = normalized(sharded, tmp_path / "out")
    assert [path.name for path in files_of(out)] == [path.name for path in files_of(sharded)]
    expected = written(TINY[metadata_of(sharded, "model_type")](), tokenizer, tmp_path / "plain")
    assert set(Checkpoint(out).names) == set(load_file(expected / WEIGHTS))
    assert torch.equal(logits(out), logits(expected))


@pytest.mark.parametrize("model_type", CONFIGS)
def test_the_files_of_every_architecture(tokenizer: PreTrainedTokenizerFast, tmp_path: Path, model_type: str) -> None:
    """They are copied; and without a prefix, as a model without its head writes them, they give the same model."""
    model = tiny(model_type)
    source = written(model, tokenizer, tmp_path / "source", max_shard_size="60KB")
    out = normalized(source, tmp_path / "out")
    assert [sha256(path) for path in files_of(out)] == [sha256(path) for path in files_of(source)]
    for file in ("config.json", "generation_config.json"):
        assert (out / file).read_bytes() == (source / file).read_bytes()
    index, given = (json.loads((folder / INDEX).read_text()) for folder in (out, source))
    assert index["weight_map"] == given["weight_map"]
    assert index["metadata"]["total_size"] == given["metadata"]["total_size"]
    assert torch.equal(logits(out), logits(source))
    prefix = f"{model.base_model_prefix}."
    for path in files_of(source):
        rewrite(path, lambda weights: {name.removeprefix(prefix): weight for name, weight in weights.items()})
    again = normalized(source, tmp_path / "again")
    assert torch.equal(logits(again), logits(out))


def head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}


def as_the_head(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("model.embed_tokens", "lm_head"): weight for name, weight in weights.items()}


@pytest.mark.parametrize("change", [head, as_the_head], ids=["twice", "once, as the head"])
def test_tied_weights_are_stored_once(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, change: Callable[..., dict[str, torch.Tensor]]
) -> None:
    source = written(tiny_llama(), tokenizer, tmp_path / "tied")
    expected = load_file(source / WEIGHTS)
    rewrite(source / WEIGHTS, change)
    out = normalized(source, tmp_path / "out")
    kept = load_file(out / WEIGHTS)
    assert kept.keys() == expected.keys()
    assert all(torch.equal(kept[name], weight) for name, weight in expected.items())
    assert metadata_of(out, "tie_word_embeddings")
    assert torch.equal(logits(out), logits(source))


def test_tied_weights_in_a_shard_of_their_own(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """The hub's Gemma keeps its head in a shard; a shard of which nothing is kept is left out."""
    source = written(tiny_llama(), tokenizer, tmp_path / "tied", max_shard_size="50KB")
    index = json.loads((source / INDEX).read_text())
    save_file(
        {"lm_head.weight": load_file(files_of(source)[0])["model.embed_tokens.weight"]}, source / "head.safetensors"
    )
    index["weight_map"]["lm_head.weight"] = "head.safetensors"
    (source / INDEX).write_text(json.dumps(index))
    out = normalized(source, tmp_path / "out")
    assert {path.name for path in files_of(source)} - {path.name for path in files_of(out)} == {"head.safetensors"}
    assert torch.equal(logits(out), logits(source))


def test_an_untied_head_keeps_its_tensor(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Although it equals the embedding: the config does not tie them."""
    source = written(tiny_llama(), tokenizer, tmp_path / "untied")
    rewrite(source / WEIGHTS, head)
    set_config(source, tie_word_embeddings=False)
    out = normalized(source, tmp_path / "out")
    assert sha256(out / WEIGHTS) == sha256(source / WEIGHTS)
    assert not metadata_of(out, "tie_word_embeddings")


def test_the_config_spells_out_what_its_model_is(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    source = written(tiny_llama(), tokenizer, tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    short = {key: value for key, value in config.items() if key not in ("dtype", "head_dim", "tie_word_embeddings")}
    short |= {"torch_dtype": "float16", "architectures": ["MyLlama"], "temperature": 0.5}
    short |= {"auto_map": {"AutoModelForCausalLM": "code.MyLlama"}, "tie_word_embeddings": True}
    (source / "config.json").write_text(json.dumps(short))
    (source / "code.py").write_text("raise SystemExit")
    named = json.loads((source / "tokenizer_config.json").read_text()) | {
        "auto_map": {"AutoTokenizer": ["code.T", None]}
    }
    (source / "tokenizer_config.json").write_text(json.dumps(named))
    (source / "generation_config.json").unlink()
    out = normalized(source, tmp_path / "out")
    assert json.loads((out / "config.json").read_text()) == config
    assert json.loads((out / "generation_config.json").read_text())["temperature"] == 0.5
    assert not (out / "code.py").exists()
    assert "auto_map" not in (out / "tokenizer_config.json").read_text()


def test_stages_read_several_files_as_one(
    project: Path, run_stage: RunStage, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Pruning, with blocks pruned on trial and restored; merging; recovery; scores; sizes."""
    changes = {"prune.method": "wanda", "prune.budget": "sensitivity", "compare.variants": ["merged_2"]}
    write_params(project, changed_params({**changes, "recover.steps": 2}))
    found = []
    for shards in ({}, {"max_shard_size": "50KB"}):
        written(tiny_llama(), tokenizer, project / "mine/model", **shards)
        downloads = [("download", "model"), ("download", "text")]
        for stage in (*downloads, ("baseline_ppl",), ("prune",), ("shrink",), ("recover",), ("post_ppl",)):
            finished = run_stage(*stage)
            assert finished.status == 0, finished.err
        names = ("masks.bin", "permutations.safetensors", "changes.safetensors")
        results = [path for name in names for path in sorted(Path("data").glob(f"**/{name}"))]
        assert {path.name for path in results} == set(names)
        found.append(({path: sha256(path) for path in results}, read_table(predictions_path("perplexity", "pruned"))))
        if (project / "mine/model" / WEIGHTS).exists():
            (project / "mine/model" / WEIGHTS).unlink()
    assert len(files_of(Path("data/model"))) > 2
    assert found[0][0] == found[1][0]
    pd.testing.assert_frame_equal(found[0][1], found[1][1])


def test_an_export_has_several_files_if_it_is_large(
    project: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Whether or not the model had."""
    limited = partial(exporting.save_torch_state_dict, max_shard_size="20KB")  # 5 GB otherwise
    source = written(tiny_llama(), tokenizer, project / "mine/model", max_shard_size="50KB")
    (source / WEIGHTS).unlink()
    for item in ("model", "text"):
        assert run_stage("download", item).status == 0
    assert run_stage("export", "one", "--model", "original").status == 0
    monkeypatch.setattr(exporting, "save_torch_state_dict", limited)
    assert run_stage("export", "several", "--model", "original").status == 0
    assert [path.name for path in files_of(Path("one"))] == [WEIGHTS]
    assert not Path("one", INDEX).exists()
    assert len(files_of(Path("several"))) > len(files_of(source))
    for out in ("one", "several"):
        assert torch.equal(logits(Path(out)), logits(source))


def write_gguf(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path, leave_out: str = "") -> None:
    """A Llama as llama.cpp's converter writes it: other names, and rows of queries and keys in another order."""
    config, vocabulary = model.config, tokenizer.get_vocab()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*tokens, *(f"<unused{number}>" for number in range(len(tokens), config.vocab_size))])
    writer.add_token_types([gguf.TokenType.CONTROL, *[gguf.TokenType.NORMAL] * (config.vocab_size - 1)])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        values = weight.numpy()
        for kind, heads in (("q_proj", config.num_attention_heads), ("k_proj", config.num_key_value_heads)):
            if kind in name:
                values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        if name != "lm_head.weight" and name != leave_out:
            writer.add_tensor(names.get_name(name, (".weight",)), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_file_of_the_users_own(project: Path, run_stage: RunStage, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama()
    folder = project / "mine" / "a model"
    folder.mkdir()
    write_gguf(model, tokenizer, folder / "tiny.gguf")
    (folder / "generation_config.json").write_text('{"eos_token_id": 7}')  # of something else in the same folder
    write_params(project, changed_params({"model.path": "mine/a model/tiny.gguf"}))
    assert run_stage("download", "model") == Finished(0, "", "")
    with torch.inference_mode():
        assert torch.equal(logits(Path("data/model")), model(input_ids=IDS).logits)
    text = "the cat sat on a naïve mat"
    assert AutoTokenizer.from_pretrained("data/model")(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert json.loads(Path("data/model/generation_config.json").read_text())["eos_token_id"] == 0


def test_a_gguf_file_without_a_tensor(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    write_gguf(tiny_llama(), tokenizer, tmp_path / "tiny.gguf", leave_out="model.layers.1.mlp.up_proj.weight")
    with pytest.raises(UserError, match=r"tiny.gguf: lacks model.layers.1.mlp.up_proj.weight of a llama"):
        normalize_gguf(tmp_path / "tiny.gguf", tmp_path / "out")


GGUF_DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty of it": lambda content: b"x",
    "cut in its header": lambda content: content[:1000],
    "cut in its weights": lambda content: content[:-100],
    "of an unknown type": lambda content: content.replace(b"llama", b"lamas"),
}


@pytest.mark.parametrize("damage", GGUF_DAMAGES.values(), ids=GGUF_DAMAGES)
def test_a_gguf_file_that_cannot_be_read(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "tiny.gguf"
    write_gguf(tiny_llama(), tokenizer, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"tiny.gguf: not a GGUF file that transformers can read \(.*; fetch it again"):
        normalize_gguf(path, tmp_path / "out")


def test_a_gguf_file_in_parts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a part of a model; join the parts with llama-gguf-split --merge"):
        normalize_gguf(tmp_path / "tiny-00001-of-00003.gguf", tmp_path / "out")


def spaces(mine: Path) -> str:
    (mine / "model").rename(mine / "a model of mine")
    return "mine/a model of mine"


def a_link(mine: Path) -> str:
    (mine / "model").rename(mine / "elsewhere")
    (mine / "model").symlink_to("elsewhere")
    return "mine/model"


def a_link_to_files(mine: Path) -> str:
    """As in the hub's cache."""
    (mine / "blobs").mkdir()
    for path in list((mine / "model").iterdir()):
        path.rename(mine / "blobs" / path.name)
        path.symlink_to(Path("..") / "blobs" / path.name)
    return "mine/model"


def all_at_once(mine: Path) -> str:
    spaces(mine)
    (mine / "to it").symlink_to("a model of mine")
    return "mine/to it/"


PATHS: dict[str, Callable[[Path], str]] = {
    "spaces": spaces,
    "a link": a_link,
    "links to files": a_link_to_files,
    "a trailing slash": lambda mine: "mine/model/",
    "an absolute path": lambda mine: f"{mine / 'model'}/",
    "a dot before": lambda mine: "./mine/model",
}


@pytest.mark.parametrize(
    "place",
    [
        pytest.param(all_at_once, id="all at once"),
        *(pytest.param(place, id=name, marks=pytest.mark.slow) for name, place in PATHS.items()),
    ],
)
def test_paths(tmp_path: Path, tiny_folders: dict[str, Path], place: Callable[[Path], str]) -> None:
    repository = Repository.create(tmp_path / "a project", tiny_folders["llama"])
    path = place(repository.folder / "mine")
    write_params(repository.folder, changed_params({"model.path": path}))
    repository.dvc("repro", "download@model")
    assert sha256(repository.folder / "data/model" / WEIGHTS) == sha256(tiny_folders["llama"] / WEIGHTS)
    assert "didn't change" in repository.dvc("repro", "download@model")
    weights = (repository.folder / path / WEIGHTS).resolve()
    rewrite(weights, lambda weights: {name: weight * 2 for name, weight in weights.items()})
    assert "Running stage" in repository.dvc("repro", "download@model")


UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from stages.lib.weights.normalizing import normalize_folder
from transformers import AutoTokenizer
source, out, room = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
AutoTokenizer.from_pretrained(source)  # imports the rest
used = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData"))
limit = int(used.split()[1]) * 1024 + room
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
normalize_folder(source, out)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts private memory on Linux only")
@pytest.mark.parametrize(("written_again", "room"), [(False, 20_000_000), (True, 100_000_000)])
def test_memory_for_one_shard_is_enough(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, written_again: bool, room: int
) -> None:
    """256 MB in five files of at most 66 MB; a file that is copied takes no memory beyond what the imports take."""
    big = tiny_llama(hidden_size=1024, intermediate_size=4096, num_hidden_layers=4, vocab_size=1024)
    source = written(big, tokenizer, tmp_path / "big", max_shard_size="65MB")
    assert len(files_of(source)) > 3
    if written_again:
        for path in files_of(source):
            rewrite(path, lambda weights: {name.removeprefix("model."): weight for name, weight in weights.items()})
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", UNDER_A_LIMIT, str(source), str(tmp_path / "out"), str(room)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert torch.equal(logits(tmp_path / "out"), logits(source))
