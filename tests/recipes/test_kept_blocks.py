"""compressed_n: the model of the kept blocks, its config, its caches and its counts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import CPU, DEPTH_KEY, TINY, keep_blocks, load
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.recipes.kept_blocks import without_others
from stages.lib.recipes.recipe import materialize
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.module_tree import structure_of

KEPT = [0, 2, 4]
SIZES = {
    **{"vocab_size": 320, "hidden_size": 32, "intermediate_size": 64},
    **{"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
}


@pytest.fixture(params=["llama", "gpt2"])
def deep_folder(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / request.param
    TINY[request.param](**{DEPTH_KEY[request.param]: 12}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return folder


def test_kept_blocks_compute_what_the_base_with_the_others_skipped_computes(
    deep_folder: Path, tmp_path: Path, original: Path
) -> None:
    base, ids = load(deep_folder, original, CPU), torch.arange(40)[None]
    blocks = base.body.layers if hasattr(base.body, "layers") else base.body.h
    for number, block in enumerate(blocks):
        if number not in KEPT:
            block.forward = lambda hidden_states, *others, **named: hidden_states
    kept = load(deep_folder, keep_blocks(deep_folder, KEPT, tmp_path / "recipe"), CPU)
    assert torch.equal(kept.model(ids).logits, base.model(ids).logits)


def test_generation_with_the_cache_is_generation_without_it(deep_folder: Path, tmp_path: Path) -> None:
    kept = load(deep_folder, keep_blocks(deep_folder, KEPT, tmp_path / "recipe"), CPU)
    assert kept.model.config.num_hidden_layers == len(KEPT)
    ids = torch.arange(10, 30)[None]
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "max_new_tokens": 20, "pad_token_id": 0}
    cached = kept.model.generate(ids, **options)
    plain = kept.model.generate(ids, use_cache=False, **options)
    assert torch.equal(cached, plain)
    cache = kept.model(ids, use_cache=True).past_key_values
    assert len(cache.layers) == len(KEPT)
    assert cache.get_seq_length(len(KEPT) - 1) == 20
    indices = {getattr(module, "layer_idx", None) for module in kept.model.modules()} - {None}
    assert indices == set(range(len(KEPT)))


def test_all_blocks_are_the_base(deep_folder: Path, tmp_path: Path, original: Path) -> None:
    kept = load(deep_folder, keep_blocks(deep_folder, list(range(12)), tmp_path / "recipe"), CPU).model.state_dict()
    base = load(deep_folder, original, CPU).model.state_dict()
    assert kept.keys() == base.keys()
    assert all(torch.equal(kept[name], base[name]) for name in base)


def test_numbers_with_two_digits_are_not_mixed_up(deep_folder: Path, tmp_path: Path) -> None:
    made = materialize(Checkpoint(deep_folder), keep_blocks(deep_folder, [1, 10, 11], tmp_path / "recipe"))
    base = materialize(Checkpoint(deep_folder), keep_blocks(deep_folder, list(range(12)), tmp_path / "all"))
    for name, weight in made.weights.items():
        for new, old in ((".0.", ".1."), (".1.", ".10."), (".2.", ".11.")):
            if f".h{new}" in name or f".layers{new}" in name:
                assert torch.equal(weight, base.weights[name.replace(new, old, 1)])
    assert len(made.weights) < len(base.weights)


def test_a_block_that_is_not_there(deep_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the recipe keeps block 12"):
        load(deep_folder, keep_blocks(deep_folder, [0, 12], tmp_path / "recipe"), CPU)


def test_settings_of_each_block_are_those_of_the_kept_ones(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast, original: Path
) -> None:
    """As Qwen3 has them: its config says for each block which kind of attention it has."""
    kinds = ["full_attention", "sliding_attention", "full_attention", "sliding_attention"]
    torch.manual_seed(0)
    config = Qwen3Config(
        **SIZES,
        head_dim=8,
        layer_types=kinds,
        sliding_window=8,
        use_sliding_window=True,
        eos_token_id=[0, 1, 2, 3],
        initializer_range=0.2,
    )
    Qwen3ForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    write_sums(tmp_path / "base")
    base, ids = load(tmp_path / "base", original, CPU), torch.arange(40)[None]
    for block in (0, 2):
        base.body.layers[block].forward = lambda hidden_states, *others, **named: hidden_states
    kept = load(tmp_path / "base", keep_blocks(tmp_path / "base", [1, 3], tmp_path / "recipe"), CPU)
    assert kept.model.config.layer_types == [kinds[1], kinds[3]]
    assert kept.model.config.eos_token_id == [0, 1, 2, 3]
    assert torch.equal(kept.model(ids).logits, base.model(ids).logits)


def test_blocks_that_do_not_fit_in_their_new_place_are_one_line(
    tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """The config says by number that the second block has no experts: kept in first place, it would need some."""
    experts = {"num_experts": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
    config = Qwen2MoeConfig(
        **SIZES,
        mlp_only_layers=[1],
        **experts,
    )
    Qwen2MoeForCausalLM(config).save_pretrained(tmp_path / "base")
    write_sums(tmp_path / "base")
    recipe = keep_blocks(tmp_path / "base", [1, 2], tmp_path / "recipe")
    with pytest.raises(UserError, match="one that is kept does not fit in its new place"):
        materialize(Checkpoint(tmp_path / "base"), recipe)


@pytest.mark.parametrize(
    ("config", "blocks", "why"),
    [
        ({"model_type": "gpt2", "n_layer": 4, "scale_attn_by_inverse_layer_idx": True}, [0, 2], "compute with their"),
        ({"model_type": "diffllama", **SIZES}, [0, 2], "compute with their number"),
        ({"model_type": "lfm2", **SIZES, "layer_types": ["conv", "full_attention"] * 2}, [0, 2], "No block that is"),
        ({"model_type": "lfm2", **SIZES, "layer_types": ["conv", "full_attention"] * 2}, [1, 3], ""),
        ({"model_type": "gpt2", "n_layer": 4}, [0, 2], ""),
    ],
)
def test_models_that_cannot_lose_blocks(config: dict[str, Any], blocks: list[int], why: str) -> None:
    reason = without_others(config, structure_of(config, ""), blocks)
    assert why in reason
    assert bool(why) == bool(reason)
