"""Counts against the models' own parameters, and the full-size GPT-2 of the study."""

from pathlib import Path

import pytest
import torch
from conftest import CPU, ROOT
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from stages.lib.checkpoint import Checkpoint
from stages.lib.counts import count
from stages.lib.exporting import export
from stages.lib.families import prunable_weights
from stages.lib.models import load
from stages.lib.params import load_params
from stages.lib.recipes import prune_by_magnitude, write_recipe


def test_total_is_the_models_own_with_tied_tensors_once(tiny_folder: Path) -> None:
    counts = count(Checkpoint(tiny_folder), prunable_weights(tiny_folder))
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    assert counts.total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("k", [0, 10, 4000])
def test_zeros_that_were_there_are_counted_honestly(tiny_folders: dict[str, Path], tmp_path: Path, k: int) -> None:
    weights = load_file(tiny_folders["llama"] / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][:2] = 0  # 64 prunable zeros
    weights["model.layers.0.mlp.up_proj.weight"][0, :5] = -0.0
    weights["model.embed_tokens.weight"][3] = 0  # 32 zeros that are not prunable
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_folders["llama"] / name).read_bytes())
    counts = count(Checkpoint(tmp_path), prunable_weights(tmp_path))
    assert counts.prunable_zeros == 64
    assert counts.zeros == 64 + 32 + 32  # and the pad token's embedding, which transformers made zero
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    write_recipe(prune_by_magnitude(tmp_path, Checkpoint(tmp_path), k), recipe)
    model = load(tmp_path, recipe, CPU).model
    assert counts.effective(k) == sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def test_full_size_gpt2(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    base = tmp_path / "base"
    model.save_pretrained(base)
    embeddings = {name: p.detach().clone() for name, p in model.named_parameters() if "wte" in name or "wpe" in name}
    del model
    checkpoint, names = Checkpoint(base), prunable_weights(base)
    counts = count(checkpoint, names)
    assert counts.total == 124_439_808
    assert counts.prunable == 84_934_656
    k = round(load_params(ROOT / "studies" / "gpt2.yaml").prune.sparsity * counts.prunable)
    assert k == 20_439_808
    recipe = prune_by_magnitude(base, checkpoint, k)
    assert recipe.pruned == 20_439_808
    assert counts.effective(k) == 104_000_000 - (counts.zeros - counts.prunable_zeros)
    folder, out = tmp_path / "recipe", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    write_recipe(recipe, folder)
    export(base, folder, out)
    pruned = load_file(out / "model.safetensors")
    assert sum(int((pruned[name] == 0).sum()) for name in names) == 20_439_808
    assert sum(tensor.numel() for tensor in embeddings.values()) == 39_383_808
    for name, tensor in embeddings.items():
        assert torch.equal(pruned[name], tensor)
