"""Every mistake of a user's: one line that says what and what to do, an exit status, nothing lost."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import tiny
from conftest import TINY, Finished, changed_params, prose, write_jsonl, write_params
from safetensors.torch import load_file, save_file
from transformers import ByT5Tokenizer, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from stages.lib.files.hashing import write_sums
from stages.lib.files.sampling import shuffled
from stages.lib.recipes.recipe import materialize
from stages.lib.weights.checkpoint import Checkpoint

RunStage = Callable[..., Finished]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def assert_one_line(finished: Finished, status: int, *says: str) -> None:
    assert finished.status == status
    assert finished.out == ""
    lines = finished.err.splitlines()
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("error: ")
    for part in says:
        assert part in lines[0]


PYPI = {"source": "pypi", "path": "data/none", "file": "a-1.tar.gz", "sha256": "0" * 64, "member": []}
HUB = {"source": "hub", "path": "data/none", "repo": "a/b", "revision": "0" * 40, "sha256": {}}

BAD_PARAMS: list[tuple[Mapping[str, Any], tuple[str, ...]]] = [
    (
        {"prune.method": "lottery"},
        ("prune.method: got 'lottery', takes magnitude, wanda, sparsegpt, kfac, surgeon or random",),
    ),
    ({"prune.scope": "matrix"}, ("prune.scope: got 'matrix', takes auto", "magnitude has global, layer, row, N:M")),
    ({"prune.scope": 2}, ("prune.scope: got 2, takes auto",)),
    ({"prune.scope": "4:4"}, ("prune.scope: got '4:4', takes auto", "N is from 1 to below M")),
    ({"prune.scope": "8:4"}, ("prune.scope: got '8:4', takes auto", "N is from 1 to below M")),
    ({"prune.scope": "2:4"}, ("prune.sparsity: got 0.3, takes", "2:4 prunes 0.5 of them")),
    ({"prune.method": "wanda", "prune.scope": "global"}, ("prune.scope: got 'global'", "wanda has row, layer, N:M")),
    ({"prune.method": "sparsegpt", "prune.scope": "row"}, ("prune.scope: got 'row'", "sparsegpt has layer")),
    ({"prune.method": "random", "prune.scope": "2:4"}, ("prune.scope: got '2:4'", "random has layer, row")),
    ({"prune.budget": "even"}, ("prune.budget: got 'even', takes uniform, owl, sensitivity or curvature",)),
    ({"prune.budget": "curvature"}, ("prune.budget: got 'curvature'", "scope global has only uniform")),
    (
        {"prune.scope": "layer", "prune.budget": "curvature"},
        ("prune.budget: got 'curvature'", "curvature is only for methods that read text"),
    ),
    (
        {"prune.method": "random", "prune.budget": "curvature"},
        ("prune.budget: got 'curvature'", "curvature is only for methods that read text"),
    ),
    (
        {"prune.method": "wanda", "prune.scope": "2:4", "prune.sparsity": 0.5, "prune.budget": "curvature"},
        ("prune.budget: got 'curvature'", "scope 2:4 has only uniform"),
    ),
    ({"prune.method": "surgeon", "prune.scope": "layer"}, ("prune.scope: got 'layer'", "surgeon has global")),
    ({"prune.update": "weights"}, ("prune.update: got 'weights', takes none, or outputs",)),
    ({"prune.shots": 0}, ("prune.shots: got 0, takes a whole number from 1",)),
    ({"prune.shots": 2}, ("prune.shots: got 2, takes", "more than 1 only for kfac and surgeon, in scope global")),
    (
        {"prune.method": "wanda", "prune.shots": 2},
        ("prune.shots: got 2, takes", "more than 1 only for kfac and surgeon, in scope global"),
    ),
    (
        {"prune.method": "kfac", "prune.scope": "layer", "prune.shots": 2},
        ("prune.shots: got 2, takes", "more than 1 only for kfac and surgeon, in scope global"),
    ),
    ({"prune.budget": "owl"}, ("prune.budget: got 'owl', takes uniform", "scope global has only uniform")),
    ({"prune.calibration_tokens": 0}, ("prune.calibration_tokens: got 0, takes a whole number of tokens from 1",)),
    ({"prune.sparsity": -0.1}, ("prune.sparsity: got -0.1, takes a number from 0 to below 1",)),
    ({"prune.sparsity": 1}, ("prune.sparsity: got 1, takes a number from 0 to below 1",)),
    ({"prune.sparsity": 1.5}, ("prune.sparsity: got 1.5, takes",)),
    ({"prune.sparsity": float("nan")}, ("prune.sparsity: got nan, takes",)),
    ({"prune.sparsity": float("inf")}, ("prune.sparsity: got inf, takes",)),
    ({"prune.sparsity": "0.3"}, ("prune.sparsity: got '0.3', takes",)),
    ({"prune.sparsity": True}, ("prune.sparsity: got True, takes",)),
    ({"prune.sparsity": None}, ("prune.sparsity: missing, takes a number",)),
    (
        {"prune.sparsty": 0.3, "prune.sparsity": None},
        ("prune.sparsty: unknown key", "takes only method, scope, budget, update, shots, sparsity"),
    ),
    ({"prune.sparsty": 0.3}, ("prune.sparsty: unknown key with value 0.3",)),
    ({"prune": None}, ("prune: missing, takes a section with the keys method, scope",)),
    ({"prune": 0.3}, ("prune: got 0.3, takes a section",)),
    ({"prunes": {}}, ("prunes: unknown key", "takes only seed, compute, model")),
    ({"seed": -1}, ("seed: got -1, takes a whole number",)),
    ({"seed": 0.5}, ("seed: got 0.5, takes",)),
    ({"compute.device": "gpu"}, ("compute.device: got 'gpu', takes auto, cpu, cuda or mps",)),
    ({"perplexity.context": 1}, ("perplexity.context: got 1, takes a whole number of tokens from 2",)),
    ({"perplexity.stride": 65}, ("perplexity.stride: got 65, takes", "a larger stride would skip tokens")),
    ({"perplexity.stride": 0}, ("perplexity.stride: got 0, takes",)),
    ({"classify.mode": "body"}, ("classify.mode: got 'body', takes head (frozen body) or all",)),
    ({"classify.learning_rate": 0}, ("classify.learning_rate: got 0, takes a number above 0",)),
    ({"summarize.prompt": "template"}, ("summarize.prompt: got 'template', takes auto (chat if", "otherwise cue)")),
    (
        {"summarize.instruction": "Summarize."},
        (
            "summarize.instruction: got 'Summarize.', takes a text with one {document} in it",
            "{document} occurs 0 times",
        ),
    ),
    (
        {"summarize.instruction": "{document} {document}"},
        ("summarize.instruction: got '{document} {document}', takes", "{document} occurs 2 times"),
    ),
    ({"summarize.cue": ""}, ("summarize.cue: got '', takes the text that follows",)),
    ({"statistics.resamples": 10}, ("statistics.resamples: got 10, takes a whole number from 100",)),
    (
        {"statistics.resamples": 119},
        ("statistics.resamples: got 119, takes at least 120 for 3 comparisons: with fewer, no sampled p-value is bel",),
    ),
    ({"sensitivity.tokens": 63}, ("sensitivity.tokens: got 63, takes at least perplexity.context, which is 64",)),
    ({"compare.variants": ["merged_2", "pruned_2"]}, ("compare.variants: got", "'pruned_2' is none of them")),
    (
        {"compare.variants": ["compressed_0"]},
        ("compare.variants: got ['compressed_0'], takes a list", "n a whole number"),
    ),
    ({"compare.variants": ["merged_-4"]}, ("compare.variants: got", "'merged_-4' is none of them")),
    ({"compare.variants": ["merged_2", "merged_2"]}, ("compare.variants: got", "'merged_2' is repeated")),
    ({"compare.variants": "merged_2"}, ("compare.variants: got 'merged_2', takes a list of distinct names",)),
    ({"compare.variants": [4]}, ("compare.variants.0: got 4, takes a list of distinct names",)),
    ({"compare.variants": ["distilled"]}, ("compare.variants: got 'distilled', but distilled.source is none",)),
    ({"compare.calibration_tokens": 1}, ("compare.calibration_tokens: got 1, takes a whole number of tokens from 2",)),
    ({"compare.tied_head_sparsity": 1}, ("compare.tied_head_sparsity: got 1, takes a number from 0 to below 1",)),
    ({"sensitivity.sparsities": []}, ("sensitivity.sparsities: got [], takes a list of numbers",)),
    ({"sensitivity.sparsities": [0.2, 0.1]}, ("sensitivity.sparsities: got [0.2, 0.1], takes", "ascending")),
    ({"sensitivity.sparsities": [0.1, 1.0]}, ("sensitivity.sparsities.1: got 1.0, takes a list of numbers",)),
    ({"sensitivity.alone": 0}, ("sensitivity.alone: got 0, takes a number above 0",)),
    ({"recover.steps": -1}, ("recover.steps: got -1, takes a whole number from 0",)),
    ({"recover.learning_rate": 0}, ("recover.learning_rate: got 0, takes auto",)),
    ({"recover.learning_rate": "fast"}, ("recover.learning_rate: got 'fast', takes auto",)),
    (
        {"recover.learning_rate": "auto", "recover.objective": "lm"},
        ("recover.objective: got 'lm'", "(lm needs a number as recover.learning_rate)"),
    ),
    ({"recover.tokens_per_step": 1}, ("recover.tokens_per_step: got 1, takes a whole number of tokens from 2",)),
    ({"recover.tokens_per_step": 513}, ("recover.tokens_per_step: got 513, takes", "not a multiple of 512")),
    ({"recover.objective": "kl"}, ("recover.objective: got 'kl', takes distill (towards the predictions of",)),
    ({"frontier.methods": ["obc"]}, ("frontier.methods.0: got 'obc', takes a list of magnitude, wanda",)),
    ({"frontier.methods": ["wanda", "wanda"]}, ("frontier.methods: got", "'wanda' is repeated")),
    ({"frontier.sparsities": [0.5, 0.2]}, ("frontier.sparsities: got [0.5, 0.2], takes", "ascending")),
    ({"frontier.steps": -1}, ("frontier.steps: got -1, takes a whole number from 0",)),
    ({"harness.models": ["pruned"]}, ("harness.models: got ['pruned'], takes", "compared with the original")),
    ({"harness.models": ["original", "original"]}, ("harness.models: got", "'original' is repeated")),
    (
        {"harness.models": ["original", "merged_4"]},
        ("harness.models: got 'merged_4', takes original, pruned, merged_2, compressed_2",),
    ),
    (
        {"harness.models": ["original"], "harness.tasks": []},
        ("harness.tasks: got [], takes a list of distinct names of tasks", "there are models and no task"),
    ),
    ({"harness.tasks": ["piqa", "piqa"]}, ("harness.tasks: got", "'piqa' is repeated")),
    ({"harness.tasks": [".hidden"]}, ("harness.tasks.0: got '.hidden', takes a list of distinct names of tasks",)),
    ({"harness.tasks": ["a/b"]}, ("harness.tasks.0: got 'a/b', takes a list of distinct names of tasks",)),
    ({"harness.path": ""}, ("harness.path: got '', takes the path of a folder",)),
    ({"harness.shots": -1}, ("harness.shots: got -1, takes a whole number from 0",)),
    ({"harness.batch_size": 0}, ("harness.batch_size: got 0, takes a whole number of sequences from 1",)),
    ({"distilled.source": "pypi"}, ("distilled.source: got 'pypi', takes none, hub, local",)),
    ({"distilled.reason": ""}, ("distilled.reason: got '', takes why there is none",)),
    ({"model.source": "ftp"}, ("model.source: got 'ftp', takes pypi, hub, local",)),
    ({"text.source": None}, ("text.source: got 'nothing', takes pypi, hub, local",)),
    ({"text.path": "data/none"}, ("text.path: got 'data/none', takes", "for items that are not local")),
    ({"text.format": "html"}, ("text.format: got 'html', takes plain (the default), hutto-editorials, table or",)),
    ({"text": {**PYPI, "sha256": "abc"}}, ("text.sha256: got 'abc', takes 64 hexadecimal digits",)),
    ({"text": {**PYPI, "file": "../a.whl"}}, ("text.file: got '../a.whl', takes the file name of one wheel",)),
    ({"text": {**PYPI, "member": ["../../etc/passwd"]}}, ("text.member.0: got '../../etc/passwd', takes",)),
    ({"text": {**PYPI, "path": "x"}}, ("text.path: got 'x', takes data/none",)),
    ({"model": {**HUB, "revision": "main"}}, ("model.revision: got 'main', takes a commit",)),
    ({"model": {**HUB, "repo": "gpt2"}}, ("model.repo: got 'gpt2', takes owner/name",)),
    ({"reviews.classes": ["good"]}, ("reviews.classes: got ['good'], takes the names of two or more classes",)),
    (
        {"reviews.classes": ["a", "b", "a"]},
        ("reviews.classes: got ['a', 'b', 'a'], takes the names", "'a' is repeated"),
    ),
    ({"reviews.test_share": 1}, ("reviews.test_share: got 1, takes",)),
]


@pytest.mark.parametrize(("changes", "says"), BAD_PARAMS, ids=[says[0][:40] for _, says in BAD_PARAMS])
def test_params(project: Path, run_stage: RunStage, changes: Mapping[str, Any], says: tuple[str, ...]) -> None:
    write_params(project, changed_params(changes))
    before = contents(project)
    assert_one_line(run_stage("prune"), 2, "params.yaml", *says)
    assert contents(project) == before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file: got None, takes a map with the keys seed"),
        (b"- 1\n- 2\n", "the file: got [1, 2], takes a map"),
        (b"prune: [", "not readable as YAML"),
        (b"seed: 0\nseed: 1\n", "not readable as YAML"),
        (b"\xff\xfe\x00", "not readable as YAML"),
        (None, "not found; run from the top of the repository"),
    ],
)
def test_params_file(project: Path, run_stage: RunStage, content: bytes | None, says: str) -> None:
    if content is None:
        (project / "params.yaml").unlink()
    else:
        (project / "params.yaml").write_bytes(content)
    assert_one_line(run_stage("prune"), 2, says)


SECOND = "model-00002-of-00003.safetensors"


def remove(*names: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        for name in names:
            (model / name).unlink()

    return change


def empty(model: Path) -> None:
    shutil.rmtree(model)
    model.mkdir()


def a_file(model: Path) -> None:
    shutil.rmtree(model)
    model.write_text("x")


def truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def only_pickles(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def set_config(**values: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | values))

    return change


def set_weight(value: float) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][3, 4] = value
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return change


def drop_tensor(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def add_tensor(name: str, *shape: int) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        save_file(weights | {name: torch.ones(shape)}, model / "model.safetensors", metadata={"format": "pt"})

    return change


def rename_tensor(name: str, to: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        weights[to] = weights.pop(name)
        save_file(weights, model / "model.safetensors", metadata={"format": "pt"})

    return change


def in_dtype(dtype: torch.dtype) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors")
        save_file({name: weight.to(dtype) for name, weight in weights.items()}, model / "model.safetensors")

    return change


def in_shards(change: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change a model of several files, whose index is given as well and written afterwards."""

    def changed(model: Path) -> None:
        LlamaForCausalLM.from_pretrained(model).save_pretrained(model, max_shard_size="50KB")
        (model / "model.safetensors").unlink()
        path = model / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(model, index["weight_map"])
        path.write_text(json.dumps(index))

    return changed


def leave_the_model(model: Path, weight_map: dict[str, Any]) -> None:
    (model.parent / "outside.safetensors").write_bytes((model / SECOND).read_bytes())
    weight_map["model.norm.weight"] = "../outside.safetensors"


def hold_twice(model: Path, weight_map: dict[str, Any]) -> None:
    shutil.copyfile(model / SECOND, model / "again.safetensors")
    weight_map["model.norm.weight"] = "again.safetensors"


def without_its_index(model: Path) -> None:
    in_shards(lambda model, weight_map: None)(model)
    (model / "model.safetensors.index.json").unlink()


def without_a_shard(model: Path, weight_map: dict[str, Any]) -> None:
    """Neither the file nor its entries."""
    (model / SECOND).unlink()
    for name in [name for name, file in weight_map.items() if file == SECOND]:
        del weight_map[name]


def packed(model: Path) -> None:
    """A matrix as GPTQ packs it."""
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    weights["model.layers.0.mlp.up_proj.qweight"] = torch.ones(4, 64, dtype=torch.int32)
    weights["model.layers.0.mlp.up_proj.scales"] = torch.ones(1, 64, dtype=torch.float16)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def a_tokenizer_of_bytes(model: Path) -> None:
    remove("tokenizer.json", "tokenizer_config.json")(model)
    ByT5Tokenizer().save_pretrained(model)


def a_gpt2_without_tokenizer(model: Path) -> None:
    """transformers makes one of a single token."""
    shutil.rmtree(model)
    TINY["gpt2"]().save_pretrained(model)


def fewer_tokens(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:280].clone()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    set_config(vocab_size=280)(model)


def only_an_adapter(model: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (model / name).unlink()
    (model / "adapter_config.json").write_text("{}")
    (model / "adapter_model.safetensors").write_bytes(b"x")


BAD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing": (shutil.rmtree, "mine/model: not found; correct the path in params.yaml"),
    "empty": (empty, "mine/model: is empty; give a Hugging Face model folder or a .gguf file"),
    "a file": (a_file, "mine/model: is a file; give a Hugging Face model folder or a .gguf file"),
    "no config": (remove("config.json"), "mine/model: holds no config.json; give a Hugging Face model folder"),
    "config not JSON": (lambda m: (m / "config.json").write_text("{") and None, "config.json: not JSON"),
    "config not an object": (lambda m: (m / "config.json").write_text("[]") and None, "not a JSON object"),
    "an encoder": (
        set_config(model_type="bert"),
        "mine/model: bert is an encoder, which reads text in both directions",
    ),
    "an unknown type": (set_config(model_type="lama"), "mine/model: model_type 'lama' is not one that transformers "),
    "no decoder": (set_config(model_type="t5"), "t5 has an encoder and a decoder; a decoder such as GPT-2"),
    "quantized": (set_config(quantization_config={"quant_method": "gptq"}), "is quantized; give the model in float32"),
    "packed weights": (
        packed,
        "model.layers.0.mlp.up_proj.qweight is I32, as in a quantized model; give the model in float32, float16 or",
    ),
    "no weights": (remove("model.safetensors"), "mine/model: holds no safetensors; add model.safetensors"),
    "only pickles": (
        only_pickles,
        "mine/model: holds no safetensors but pytorch_model.bin, a pickle, which may run code when it is read; convert "
        "it: load the model in transformers, and save it by save_pretrained",
    ),
    "only a GGUF file": (
        lambda m: (m / "model.safetensors").rename(m / "tiny.gguf") and None,
        "mine/model: holds tiny.gguf but no safetensors; give the path of that file itself",
    ),
    "a shard missing": (in_shards(lambda m, _: (m / SECOND).unlink()), f"model/{SECOND}: not found; fetch it again"),
    "a shard truncated": (
        in_shards(lambda m, _: (m / SECOND).write_bytes((m / SECOND).read_bytes()[:-9]) and None),
        f"mine/model/{SECOND}: truncated or damaged",
    ),
    "a shard in no index": (in_shards(without_a_shard), "mine/model: lacks model."),
    "a shard outside": (
        in_shards(leave_the_model),
        "index.json: damaged ('../outside.safetensors' is not the name of a file in this folder); fetch it again",
    ),
    "a tensor twice": (in_shards(hold_twice), f"{SECOND}: holds model.layers.0.mlp.gate_proj.weight, as again.safe"),
    "an index of nothing": (in_shards(lambda _, names: names.clear()), "index.json: lists no file; fetch it again"),
    "shards without an index": (
        without_its_index,
        "mine/model: holds neither model.safetensors nor model.safetensors.index.json, which lists several files; add",
    ),
    "truncated": (truncate, "truncated or damaged"),
    "wrong shape": (set_config(intermediate_size=96), "mine/model: "),
    "a tensor missing": (drop_tensor, "lacks model.layers.1.mlp.up_proj.weight"),
    "NaN": (set_weight(float("nan")), "model.layers.1.mlp.up_proj.weight holds NaN or infinite weights; repair"),
    "infinite": (set_weight(float("-inf")), "holds NaN or infinite weights; repair"),
    "an adapter": (
        lambda m: (m / "adapter_config.json").write_text("{}") and None,
        "model: holds an adapter (adapter_config.json), which would be left out; merge it into the weights (in peft: "
        "merge_and_unload), and give the folder of the whole model",
    ),
    "an adapter's weights": (
        lambda m: (m / "adapter_model.safetensors").write_bytes(b"x") and None,
        "model: holds an adapter (adapter_model.safetensors)",
    ),
    "only an adapter": (only_an_adapter, "model: holds an adapter (adapter_config.json)"),
    "an adapter among the weights": (
        add_tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 8, 32),
        "q_proj.lora_A.weight, a part of an adapter; merge it into the weights (in peft: merge_and_unload), and save",
    ),
    "a head that is not there": (set_config(tie_word_embeddings=False), "mine/model: lacks lm_head.weight"),
    "a bias": (
        add_tensor("model.layers.0.self_attn.q_proj.bias", 32),
        "mine/model: holds model.layers.0.self_attn.q_proj.bias, which the model in its config.json does not have",
    ),
    "a block more": (
        set_config(num_hidden_layers=1),
        "holds model.layers.1.input_layernorm.weight, which the",
    ),
    "a classifier": (
        add_tensor("score.weight", 2, 32),
        "holds score.weight, which the model in its config.json",
    ),
    "float64": (in_dtype(torch.float64), "mine/model: model.embed_tokens.weight is F64; save the model as float32"),
    "float8": (in_dtype(torch.float8_e4m3fn), "model: model.embed_tokens.weight is F8_E4M3, as in a quantized"),
    "a text for a number": (
        set_config(hidden_size="32"),
        "mine/model: config.json does not describe a valid model (llama",
    ),
    "heads that do not fit": (
        set_config(num_attention_heads=5),
        "mine/model: config.json does not describe a valid model (llama",
    ),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer that can be read"),
    "no tokenizer, which makes an empty one": (
        a_gpt2_without_tokenizer,
        "mine/model: holds no tokenizer that can be read (it has no file); add tokenizer.json",
    ),
    "a tokenizer of another kind": (
        lambda m: (m / "tokenizer.json").write_text('{"version": "1.0", "added_tokens": [], "model": {}}') and None,
        "mine/model: holds no tokenizer that can be read (",
    ),
    "a tokenizer's config that is a list": (
        lambda m: (m / "tokenizer_config.json").write_text("[]") and None,
        "mine/model: holds no tokenizer that can be read (",
    ),
    "generation_config.json not JSON": (
        lambda m: (m / "generation_config.json").write_text("{") and None,
        "mine/model/generation_config.json: cannot be read (",
    ),
    "names of another version": (
        rename_tensor("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.w3.weight"),
        "lacks model.layers.0.mlp.up_proj.weight, which its config.json asks for, and holds "
        "model.layers.0.mlp.w3.weight, which the model does not have; correct config.json, or save the model anew",
    ),
    "a tokenizer of bytes": (
        a_tokenizer_of_bytes,
        "mine/model: its tokenizer, ByT5Tokenizer, gives no offsets; add its tokenizer.json, or give a model with a",
    ),
    "a tokenizer larger than the model": (
        fewer_tokens,
        "its tokenizer gives tokens up to 304, the model has 280 tokens from 0; give the model with its own tokenizer",
    ),
}


@pytest.mark.parametrize(("change", "says"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_model_folder(project: Path, run_stage: RunStage, change: Callable[[Path], None], says: str) -> None:
    assert run_stage("download", "model").status == 0
    before = contents(project / "data")
    change(project / "mine" / "model")
    assert_one_line(run_stage("download", "model"), 1, "download@model: ", says)
    assert contents(project / "data") == before


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("said", ["float32", "float16", "bfloat16"])
def test_the_dtype_is_that_of_the_file(project: Path, run_stage: RunStage, stored: str, said: str) -> None:
    model = project / "mine" / "model"
    set_weight(1e4 / 3)(model)
    in_dtype(getattr(torch, stored))(model)
    set_config(dtype=said)(model)
    finished = run_stage("download", "model")
    assert finished.status == 0, finished.err
    given, kept = (load_file(folder / "model.safetensors") for folder in (model, Path("data/model")))
    assert {weight.dtype for weight in kept.values()} == {getattr(torch, stored)}
    assert all(torch.equal(kept[name], weight) for name, weight in given.items())


def test_weights_beyond_float16_under_a_config_that_says_so(project: Path, run_stage: RunStage) -> None:
    set_weight(1e5)(project / "mine" / "model")
    set_config(dtype="float16")(project / "mine" / "model")
    finished = run_stage("download", "model")
    assert finished.status == 0, finished.err
    assert load_file("data/model/model.safetensors")["model.layers.1.mlp.up_proj.weight"][3, 4] == 1e5


def test_dtypes_together_get_one_that_holds_them(project: Path, run_stage: RunStage) -> None:
    path = project / "mine" / "model" / "model.safetensors"
    dtypes = {"mlp": torch.float16, "self_attn": torch.bfloat16}
    given = {
        name: weight.to(next((dtype for part, dtype in dtypes.items() if part in name), torch.bfloat16))
        for name, weight in load_file(path).items()
    }
    save_file(given, path, metadata={"format": "pt"})
    assert run_stage("download", "model").status == 0
    kept = load_file("data/model/model.safetensors")
    assert all(torch.equal(kept[name], weight.float()) for name, weight in given.items())


def test_frequencies_in_old_files_are_no_weights(
    project: Path, run_stage: RunStage, tiny_folders: dict[str, Path]
) -> None:
    add_tensor("model.layers.0.self_attn.rotary_emb.inv_freq", 4)(project / "mine" / "model")
    assert run_stage("download", "model").status == 0
    assert (
        load_file("data/model/model.safetensors").keys()
        == load_file(tiny_folders["llama"] / "model.safetensors").keys()
    )


def test_a_head_that_differs_from_the_embedding_is_its_own(project: Path, run_stage: RunStage) -> None:
    """Even where the config says that they are tied."""
    add_tensor("lm_head.weight", 320, 32)(project / "mine" / "model")
    assert run_stage("download", "model").status == 0
    assert not json.loads(Path("data/model/config.json").read_text())["tie_word_embeddings"]
    finished = shrunk_by(project, run_stage, compare__variants=["pruned-tied-head"])
    assert finished == Finished(0, "", "pruned-tied-head: left out. Its head is not tied to the token embedding.\n")


def test_a_token_without_an_embedding(downloaded: Path, run_stage: RunStage) -> None:
    """As a tokenizer in Python may give, which no list of its tokens shows."""
    path = downloaded / "data/model/tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=lambda token: vocabulary[token])] = 320
    path.write_text(json.dumps(content))
    write_sums(path.parent)
    assert_one_line(
        run_stage("baseline_ppl"), 1, "the tokenizer gives token 320, the model has 320 tokens from 0; give"
    )


def write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda mine: (mine / name).write_bytes(content) and None


def rows(name: str, *rows: dict[str, Any]) -> Callable[[Path], None]:
    return lambda mine: write_jsonl(mine / name, list(rows))


def make_folder(mine: Path) -> None:
    (mine / "text.txt").unlink()
    (mine / "text.txt").mkdir()


GOOD_REVIEW = {"text": "a cat", "label": 1}
BAD_DATA: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "text missing": ("text", lambda mine: (mine / "text.txt").unlink(), "text.txt: not found; correct the path"),
    "text a folder": ("text", make_folder, "text.txt: is a folder; give a file"),
    "text empty": ("text", lambda mine: (mine / "text.txt").write_bytes(b"") and None, "text.txt: is empty"),
    "text blank": ("text", write("text.txt", b" \n\n"), "text: holds no text; give a file with content"),
    "text not UTF-8": ("text", write("text.txt", b"na\xefve"), "text.txt: not UTF-8 (byte 2); convert it"),
    "label outside": (
        "reviews",
        rows("reviews.jsonl", GOOD_REVIEW, {"text": "b", "label": 2}),
        "row 2: label 2 is out",
    ),
    "labels mixed": (
        "reviews",
        rows("reviews.jsonl", {"text": "b", "label": "positive"}, {"text": "c", "label": "0"}),
        "row 2: label '0' is outside the classes negative, positive, and",
    ),
    "reviews of one class": (
        "reviews",
        rows("reviews.jsonl", GOOD_REVIEW, {"text": "b", "label": 1}),
        "reviews: class negative has no rows (negative 0, positive 2); add some, or correct reviews.classes",
    ),
    "a text of two labels": (
        "reviews",
        rows("reviews.jsonl", GOOD_REVIEW, {"text": "a cat", "label": 0}, {"text": "b", "label": 1}),
        "reviews: class negative has no rows (negative 0, positive 1; left out as repeated 2); add some",
    ),
    "text of one line": (
        "text",
        write("text.txt", b"the cat sat"),
        "text: text.txt has no line break with text after 70% of its length, so nothing",
    ),
    "label unknown": ("reviews", rows("reviews.jsonl", {"text": "b", "label": "so"}), "label 'so' is outside the cla"),
    "label negative": ("reviews", rows("reviews.jsonl", {"text": "b", "label": -1}), "row 1: label -1 is outside"),
    "label missing": ("reviews", rows("reviews.jsonl", GOOD_REVIEW, {"text": "b", "label": None}), "row 2: label None"),
    "no label column": ("reviews", rows("reviews.jsonl", {"text": "b"}), "has no column 'label' but text; correct"),
    "review blank": ("reviews", rows("reviews.jsonl", {"text": " ", "label": 0}), "row 1: has no text; remove the row"),
    "not JSON": ("reviews", write("reviews.jsonl", b"{oops\n"), "reviews.jsonl: not readable as jsonl"),
    "no summary": ("documents", rows("documents.jsonl", {"text": "b", "summary": ""}), "row 1: has no summary; remove"),
    "no document": ("documents", rows("documents.jsonl", {"text": None, "summary": "b"}), "row 1: has no text"),
}


@pytest.mark.parametrize(("item", "change", "says"), BAD_DATA.values(), ids=BAD_DATA)
def test_data(project: Path, run_stage: RunStage, item: str, change: Callable[[Path], None], says: str) -> None:
    assert run_stage("download", item).status == 0
    before = contents(project / "data")
    change(project / "mine")
    assert_one_line(run_stage("download", item), 1, f"download@{item}: ", says)
    assert contents(project / "data") == before


def test_an_unknown_kind_of_table(project: Path, run_stage: RunStage) -> None:
    (project / "mine" / "reviews.jsonl").rename(project / "mine" / "reviews.xls")
    write_params(project, changed_params({"reviews.path": "mine/reviews.xls"}))
    assert_one_line(run_stage("download", "reviews"), 1, "takes .parquet, .csv, .jsonl, .json files; convert it first")


@pytest.fixture
def downloaded(project: Path, run_stage: RunStage) -> Path:
    for item in ("model", "text", "reviews", "documents"):
        assert run_stage("download", item).status == 0
    assert run_stage("prune").status == 0
    assert run_stage("recover").status == 0
    return project


def test_a_text_shorter_than_a_window(downloaded: Path, run_stage: RunStage) -> None:
    (downloaded / "mine" / "text.txt").write_text("the cat\nsat")
    assert run_stage("download", "text").status == 0
    assert_one_line(run_stage("baseline_ppl"), 1, "baseline-ppl: ", "and a window of 64 takes 64; give a longer text")


LATER: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "window": (
        ("baseline_ppl",),
        {"perplexity.context": 129, "sensitivity.tokens": 129},
        "perplexity.context is 129, the model takes 128",
    ),
    "train": (("classify", "pruned"), {"classify.train_examples": 99}, "classify.train_examples is 99, and there are"),
    "test": (("classify", "pruned"), {"classify.test_examples": 99}, "classify.test_examples is 99, and there are 25"),
    "documents": (("summarize", "pruned"), {"summarize.examples": 9}, "summarize.examples is 9, and there are 8; low"),
    "room": (
        ("summarize", "pruned"),
        {"summarize.max_new_tokens": 120},
        "the model 128; shorten summarize.cue",
    ),
    "chat": (("summarize", "pruned"), {"summarize.prompt": "chat"}, "has no chat template; set it to auto or cue in"),
    "cuda": (("post_ppl",), {"compute.device": "cuda"}, "compute.device is cuda, which this machine or this torch"),
}


@pytest.mark.parametrize(("stage", "changes", "says"), LATER.values(), ids=LATER)
def test_settings_that_the_data_cannot_meet(
    downloaded: Path, run_stage: RunStage, stage: tuple[str, ...], changes: dict[str, Any], says: str
) -> None:
    if "cuda" in str(changes) and torch.cuda.is_available():
        pytest.skip("this machine has what the case lacks")
    write_params(downloaded, changed_params(changes))
    before = contents(downloaded)
    assert_one_line(run_stage(*stage), 1, says)
    assert contents(downloaded) == before


def flip(content: bytes) -> bytes:
    """One bit changed, a little before the end."""
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


def flip_data(content: bytes) -> bytes:
    """One bit changed in the middle of the first column's data, which Parquet's structure does not show."""
    return content[:300] + bytes([content[300] ^ 1]) + content[301:]


def cut(content: bytes) -> bytes:
    return content[:-9]


DAMAGED: dict[str, tuple[str, str, Callable[[bytes], bytes], str]] = {
    "base": ("post_ppl", "data/model/model.safetensors", flip, "model.safetensors: damaged, does not match SHA256SUMS"),
    "base cut": ("prune", "data/model/model.safetensors", cut, "model.safetensors: truncated or damaged"),
    "recipe": ("post_ppl", "data/recovered/pruned/recipe.json", flip, "recipe.json: damaged"),
    "recipe cut": ("classify", "data/recovered/pruned/recipe.json", cut, "recipe.json: damaged"),
    "rows": ("baseline_ppl", "data/text/rows.parquet", flip_data, "rows.parquet: damaged"),
    "rows cut": ("baseline_ppl", "data/text/rows.parquet", cut, "rows.parquet: damaged"),
}


@pytest.mark.parametrize(("stage", "file", "damage", "says"), DAMAGED.values(), ids=DAMAGED)
def test_damaged_artifacts(
    downloaded: Path, run_stage: RunStage, stage: str, file: str, damage: Callable[[bytes], bytes], says: str
) -> None:
    (downloaded / file).write_bytes(damage((downloaded / file).read_bytes()))
    finished = run_stage(stage, *(["pruned"] if stage == "classify" else []))
    assert_one_line(finished, 1, says)


def test_artifacts_that_are_not_there(project: Path, run_stage: RunStage) -> None:
    assert_one_line(
        run_stage("prune"), 1, "data/model/model.safetensors: not found; restore it with `dvc repro download`"
    )


def test_another_model_under_the_same_recipe(downloaded: Path, run_stage: RunStage) -> None:
    torch.manual_seed(9)
    TINY["llama"](initializer_range=0.3).save_pretrained(downloaded / "data" / "model")
    write_sums(downloaded / "data" / "model")
    assert_one_line(run_stage("post_ppl"), 1, "the recipe is for base", "run `dvc repro`")


@pytest.mark.parametrize("method", ["kfac", "surgeon"])
def test_another_model_under_a_stored_mask(downloaded: Path, run_stage: RunStage, method: str) -> None:
    write_params(downloaded, changed_params({"prune.method": method, "prune.update": "outputs"}))
    for stage in ("prune", "recover"):
        assert run_stage(stage).status == 0
    torch.manual_seed(9)
    TINY["llama"](initializer_range=0.3).save_pretrained(downloaded / "data" / "model")
    write_sums(downloaded / "data" / "model")
    assert_one_line(run_stage("post_ppl"), 1, "the recipe is for base", "run `dvc repro`")


def test_training_reviews_of_one_class(project: Path, run_stage: RunStage) -> None:
    scored = int(shuffled(map(str, range(50)), 0)[0])
    rows = [{"text": f"cat {number}", "label": int(number == scored)} for number in range(50)]
    write_jsonl(project / "mine" / "reviews.jsonl", rows)
    for item in ("model", "reviews"):
        assert run_stage("download", item).status == 0
    assert_one_line(
        run_stage("classify", "original"), 1, "the training reviews that were drawn lack a class (20 of class 0, 0"
    )


def test_summaries_that_are_all_empty(downloaded: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.lib.evaluation import summarization

    monkeypatch.setattr(summarization, "summarize", lambda _loaded, documents, _settings: [""] * len(documents))
    finished = run_stage("summarize", "original")
    assert_one_line(finished, 1, "the model adds no text to any of 6 documents; change summarize.cue, or raise")
    assert run_stage("summarize", "pruned").status == 0


def test_a_chat_template_that_fails_on_one_document(project: Path, run_stage: RunStage) -> None:
    template = "{% if 'wrong' in messages[0]['content'] %}{{ raise_exception('Not this one.') }}{% endif %}"
    template += "{% for turn in messages %}{{ turn['content'] }}{% endfor %}"
    (project / "mine" / "model" / "chat_template.jinja").write_text(template)
    texts = [prose(20, row) for row in range(7)]
    write_jsonl(
        project / "mine" / "documents.jsonl", [{"text": text, "summary": "a cat"} for text in [*texts, "wrong"]]
    )
    write_params(project, changed_params({"summarize.examples": 8}))
    for item in ("model", "documents"):
        assert run_stage("download", item).status == 0
    finished = run_stage("summarize", "original")
    assert_one_line(finished, 1, "the chat template fails on document '7' (Not this one.); remove the document, or set")
    assert not Path("data/predictions").exists()


def shrunk_by(project: Path, run_stage: RunStage, **changes: Any) -> Finished:
    write_params(project, changed_params({key.replace("__", "."): value for key, value in changes.items()}))
    for item in ("model", "distilled", "text"):
        assert run_stage("download", item).status == 0
    return run_stage("shrink")


@pytest.mark.parametrize("name", ["merged_3", "compressed_40", "merged_3-anchor"])
def test_more_blocks_together_than_there_are(project: Path, run_stage: RunStage, name: str) -> None:
    finished = shrunk_by(project, run_stage, compare__variants=[name])
    assert_one_line(finished, 2, f"compare.variants: got '{name}', and the model has 2 blocks; n is at most that")
    assert not Path("data/variants").exists()


def test_calibration_text_too_short(project: Path, run_stage: RunStage) -> None:
    finished = shrunk_by(project, run_stage, compare__calibration_tokens=10_000)
    assert_one_line(finished, 1, "the calibration text has", "compare.calibration_tokens is 10000; lower it")


def pruned_by(project: Path, run_stage: RunStage, **changes: Any) -> Finished:
    """The stage prune with changed settings of its section, or of others by dotted key."""
    named = {key.replace("__", ".") if "__" in key else f"prune.{key}": value for key, value in changes.items()}
    write_params(project, changed_params(named))
    for item in ("model", "text"):
        assert run_stage("download", item).status == 0
    return run_stage("prune")


READING_TEXT: list[dict[str, Any]] = [
    {"method": "wanda"},
    {"method": "kfac"},
    {"method": "surgeon", "shots": 2},
    {"method": "sparsegpt", "budget": "curvature"},
    {"method": "magnitude", "update": "outputs"},
]


@pytest.mark.parametrize("settings", READING_TEXT, ids=lambda settings: "-".join(map(str, settings.values())))
def test_calibration_text_too_short_to_prune_on(project: Path, run_stage: RunStage, settings: dict[str, Any]) -> None:
    finished = pruned_by(project, run_stage, **settings, calibration_tokens=10_000)
    assert_one_line(finished, 1, "the calibration text has", "prune.calibration_tokens is 10000; lower it")
    assert not Path("data/pruned").exists()


class WithoutBackward(torch.autograd.Function):
    """An operation that some device lacks in some dtype, on the way back alone."""

    @staticmethod
    def forward(context: Any, states: torch.Tensor) -> torch.Tensor:
        return states.clone()

    @staticmethod
    def backward(context: Any, gradients: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("\"norm_backward\" not implemented for 'Half'\nand more")


ON_GRADIENTS: list[dict[str, Any]] = [
    {"method": "kfac"},
    {"method": "surgeon"},
    {"method": "wanda", "budget": "curvature"},
]


@pytest.mark.parametrize("settings", ON_GRADIENTS, ids=lambda settings: settings["method"])
@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("float16", "set compute.dtype to float32, or prune.method to one without"),
        ("float32", "set prune.method to one"),
    ],
)
def test_a_model_that_cannot_be_differentiated(
    project: Path,
    run_stage: RunStage,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
    dtype: str,
    remedy: str,
) -> None:
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda norm, states: norm.weight * WithoutBackward.apply(states))
    finished = pruned_by(project, run_stage, **settings, compute__dtype=dtype)
    reason = "\"norm_backward\" not implemented for 'Half' and more"
    assert_one_line(finished, 1, f"the model cannot be differentiated in {dtype} ({reason}); in params.yaml, {remedy}")
    assert not Path("data/pruned").exists()


@pytest.mark.parametrize("settings", ON_GRADIENTS, ids=lambda settings: settings["method"])
def test_curvature_that_overflows(project: Path, run_stage: RunStage, settings: dict[str, Any]) -> None:
    set_weight(1e5)(project / "mine" / "model")
    finished = pruned_by(project, run_stage, **settings, compute__dtype="float16")
    assert_one_line(finished, 1, "are not finite in float16; set compute.dtype to float32 in params.yaml")
    assert not Path("data/pruned").exists()


@pytest.mark.parametrize("settings", ON_GRADIENTS, ids=lambda settings: settings["method"])
def test_curvature_of_experts(project: Path, run_stage: RunStage, settings: dict[str, Any]) -> None:
    tiny("mixtral").save_pretrained(project / "mine" / "model")
    finished = pruned_by(project, run_stage, **settings)
    says = (
        "experts.0.w1.weight cannot be gathered; set prune.method to magnitude, random, wanda or sparsegpt, and prune"
    )
    assert_one_line(finished, 1, "the gradients of model.layers.0.", says)
    assert not Path("data/pruned").exists()


@pytest.mark.parametrize("settings", READING_TEXT, ids=lambda settings: "-".join(map(str, settings.values())))
def test_dead_inputs_and_outputs_are_no_mistake(project: Path, run_stage: RunStage, settings: dict[str, Any]) -> None:
    path = project / "mine" / "model" / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.0.input_layernorm.weight"][:3] = 0  # three inputs that are always zero
    for name in ("gate_proj", "up_proj"):
        weights[f"model.layers.1.mlp.{name}.weight"][:5] = 0  # five neurons that are always off
    weights["model.layers.1.self_attn.o_proj.weight"].zero_()  # no head is read
    save_file(weights, path, metadata={"format": "pt"})
    finished = pruned_by(project, run_stage, **settings, sparsity=0.5)
    assert finished.status == 0, finished.err
    made = materialize(Checkpoint(Path("data/model")), Path("data/pruned"))
    sizes = [made.weights[name].numel() for name in made.structure.prunable]
    assert sum(int(mask.sum()) for mask in made.masks.values()) == round(0.5 * sum(sizes))
    for name, mask in made.masks.items():
        assert torch.isfinite(made.weights[name]).all()
        assert not made.weights[name][mask].any()


def test_inputs_that_a_pattern_does_not_divide(project: Path, run_stage: RunStage) -> None:
    write_params(project, changed_params({"prune.scope": "5:9", "prune.sparsity": 0.444444}))
    for item in ("model", "text"):
        assert run_stage("download", item).status == 0
    finished = run_stage("prune")
    assert_one_line(
        finished, 1, "prune.scope: got '5:9', but 9 does not divide the 32 inputs of a matrix; choose another M"
    )
    assert not Path("data/pruned").exists()


def test_no_calibration_text(project: Path, run_stage: RunStage) -> None:
    finished = shrunk_by(project, run_stage, text__test_share=1.0)
    assert_one_line(finished, 1, "data/text/rows.parquet: has no train rows; give files for it, or change test_share")


def test_a_variant_whose_recipe_is_not_there(downloaded: Path, run_stage: RunStage) -> None:
    assert_one_line(
        run_stage("compare", "merged_9"),
        1,
        "data/recovered/merged_9/recipe.json: not found; restore it with `dvc repro`",
    )


@pytest.mark.parametrize("stage", ["compare", "recover_others", "measure", "measure_harness"])
def test_a_model_of_no_known_name(project: Path, run_stage: RunStage, stage: str) -> None:
    assert_one_line(run_stage(stage, "merged"), 2, "got 'merged', takes ", "merged_n, merged_n-anchor, compressed_n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch", "0.3"], "method: got 'nosuch', takes magnitude, wanda, sparsegpt, kfac, surgeon, random"),
        (["wanda", "abc"], "sparsity: got 'abc', takes a number from 0 to below 1"),
        (["wanda", "1.5"], "sparsity: got '1.5', takes a number from 0 to below 1"),
        (["magnitude", "nan"], "sparsity: got 'nan', takes a number from 0 to below 1"),
    ],
)
def test_a_point_that_no_frontier_has(project: Path, run_stage: RunStage, arguments: list[str], says: str) -> None:
    assert_one_line(run_stage("frontier", *arguments), 2, says)


def test_two_recipes_in_one_folder(project: Path, run_stage: RunStage) -> None:
    assert shrunk_by(project, run_stage).status == 0
    for variant in ("merged_2", "compressed_2"):
        assert run_stage("recover_others", variant).status == 0
    name = "permutations.safetensors"
    shutil.copyfile(f"data/recovered/merged_2/{name}", f"data/recovered/compressed_2/{name}")
    finished = run_stage("compare", "compressed_2")
    assert_one_line(finished, 1, "holds permutations.safetensors beside a recipe of kind kept-blocks; one folder")


def test_a_variant_of_another_base(project: Path, run_stage: RunStage) -> None:
    assert shrunk_by(project, run_stage).status == 0
    for variant in ("merged_2", "compressed_2"):
        assert run_stage("recover_others", variant).status == 0
    path = Path("data/model/model.safetensors")
    save_file({name: weight * 2 for name, weight in load_file(path).items()}, path)
    write_sums(path.parent)
    for variant in ("merged_2", "compressed_2"):
        assert_one_line(run_stage("compare", variant), 1, "the recipe is for base")
