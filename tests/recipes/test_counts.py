"""Counts against the models' own parameters, and the full-size GPT-2 of the study."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, load, magnitude_recipe
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from stages.lib.files.hashing import write_sums
from stages.lib.plumbing.params import load_params
from stages.lib.pruning.budgets import pruned_count
from stages.lib.recipes.kept_blocks import KeptBlocks
from stages.lib.recipes.merged import MergedFeedForward, block_groups, merge, write_permutations
from stages.lib.recipes.recipe import materialize, size_of, write_recipe
from stages.lib.reporting.exporting import export
from stages.lib.weights.checkpoint import Checkpoint


def size(base: Path, recipe: Path) -> dict[str, int]:
    return size_of(materialize(Checkpoint(base), recipe), recipe)


def test_total_is_the_models_own_with_tied_tensors_once(tiny_folder: Path, original: Path) -> None:
    found = size(tiny_folder, original)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert found["total_parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert found["distinct_parameters"] == found["total_parameters"]
    assert found["stored_bytes"] == (tiny_folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("k", [0, 10, 4000])
def test_zeros_that_were_there_are_counted_honestly(
    tiny_folders: dict[str, Path], original: Path, tmp_path: Path, k: int
) -> None:
    base, recipe = tmp_path / "base", tmp_path / "recipe"
    base.mkdir()
    recipe.mkdir()
    weights = load_file(tiny_folders["llama"] / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][:2] = 0  # 64 prunable zeros
    weights["model.layers.0.mlp.up_proj.weight"][0, :5] = -0.0
    weights["model.embed_tokens.weight"][3] = 0  # 32 zeros that are not prunable
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (base / name).write_bytes((tiny_folders["llama"] / name).read_bytes())
    write_sums(base)
    before = size(base, original)
    # 32 more are the pad token's embedding, which transformers made zero
    assert before["total_parameters"] - before["effective_parameters"] == 64 + 32 + 32
    write_recipe(magnitude_recipe(base, k), recipe)
    after = size(base, recipe)
    assert after["pruned_weights"] == k
    assert before["effective_parameters"] - after["effective_parameters"] == k - min(k, 64)
    model = load(base, recipe, CPU).model
    assert after["effective_parameters"] == sum(int(parameter.count_nonzero()) for parameter in model.parameters())
    assert after["stored_bytes"] == (recipe / "recipe.json").stat().st_size


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GPT-2 small with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("full") / "base"
    GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    write_sums(folder)
    return folder


def test_full_size_gpt2(full_size: Path, original: Path, tmp_path: Path) -> None:
    base = full_size
    embeddings = {
        name: p for name, p in load_file(base / "model.safetensors").items() if "wte" in name or "wpe" in name
    }
    names, before = Checkpoint(base).structure.prunable, size(base, original)
    assert before["total_parameters"] == 124_439_808
    assert before["prunable_weights"] == 84_934_656
    k = pruned_count(load_params(ROOT / "studies" / "gpt2.yaml").prune, before["prunable_weights"])
    assert k == 20_439_808
    recipe = magnitude_recipe(base, k)
    assert recipe.pruned == 20_439_808
    folder, out = tmp_path / "recipe", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    write_recipe(recipe, folder)
    zeros = sum(int((load_file(base / "model.safetensors")[name] == 0).sum()) for name in names)
    others = 124_439_808 - before["effective_parameters"] - zeros
    assert size(base, folder)["effective_parameters"] == 104_000_000 - others
    export(base, folder, out)
    pruned = load_file(out / "model.safetensors")
    assert sum(int((pruned[name] == 0).sum()) for name in names) == 20_439_808
    assert sum(tensor.numel() for tensor in embeddings.values()) == 39_383_808
    for name, tensor in embeddings.items():
        assert torch.equal(pruned[name], tensor)


@pytest.mark.parametrize(
    ("n", "parameters"), [(4, 60_648_960), (6, 53_561_088), (8, 53_561_088), (10, 53_561_088), (1, 124_439_808)]
)
def test_full_size_compressed(full_size: Path, tmp_path: Path, n: int, parameters: int) -> None:
    first = [group[0] for group in block_groups(12, n)]
    write_recipe(KeptBlocks(base_sha256=Checkpoint(full_size).sha256, blocks=first), tmp_path)
    assert size(full_size, tmp_path)["total_parameters"] == parameters


def test_full_size_merged(full_size: Path, tmp_path: Path) -> None:
    order = {block: np.arange(3072, dtype=np.uint16) for block in range(12) if block % 4}
    digest = merge(load_file(full_size / "model.safetensors"), Checkpoint(full_size).structure, 4, False, order)
    base = Checkpoint(full_size).sha256
    write_recipe(MergedFeedForward(base_sha256=base, n=4, anchor_only=False, merged_sha256=digest), tmp_path)
    write_permutations(order, tmp_path)
    made = materialize(Checkpoint(full_size), tmp_path)
    found = size_of(made, tmp_path)
    assert found["total_parameters"] == 124_439_808
    assert found["distinct_parameters"] == 124_439_808 - 9 * (
        2 * 768 * 3072 + 3072 + 768
    )  # three of each four are shared
    assert torch.equal(made.weights["transformer.h.4.mlp.c_fc.weight"], made.weights["transformer.h.7.mlp.c_fc.weight"])


def test_full_size_tied_head(full_size: Path, tmp_path: Path) -> None:
    """The published Pruned_104M: about half of the tied head, and 104.7M parameters left."""
    share = load_params(ROOT / "studies" / "gpt2.yaml").compare.tied_head_sparsity
    recipe = magnitude_recipe(full_size, round(share * 50257 * 768), "tied-head")
    write_recipe(recipe, tmp_path)
    made, base = materialize(Checkpoint(full_size), tmp_path), load_file(full_size / "model.safetensors")
    touched = [name for name, weight in made.weights.items() if not torch.equal(weight, base[name])]
    assert touched == ["transformer.wte.weight"]
    zeros = sum(int((weight == 0).sum()) for weight in base.values())
    effective = size_of(made, tmp_path)["effective_parameters"]
    assert effective == 124_439_808 - zeros - round(0.51 * 38_597_376)
    assert 104.6e6 < effective + zeros < 104.8e6


def test_full_size_distilgpt2() -> None:
    with torch.device("meta"):
        model = GPT2LMHeadModel(GPT2Config(n_layer=6))
    assert sum(parameter.numel() for parameter in model.parameters()) == 81_912_576
