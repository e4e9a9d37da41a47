"""The description of a structure, whole, for a model with experts and for one without."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished

MIXTRAL = {
    **{"model_type": "mixtral", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 4},
}
GPT2 = {"model_type": "gpt2", "vocab_size": 320, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
SAYS = {
    "mixtral": """\
mixtral: mixtral, 2 blocks in model.layers
token embedding model.embed_tokens.weight, head lm_head.weight
76,192 parameters, of which 55,296 (72.6%) are prunable

prunable                       outputs × inputs  matrices  weights
self_attn.q_proj               32 × 32                  2    2,048
self_attn.k_proj               16 × 32                  2    1,024
self_attn.v_proj               16 × 32                  2    1,024
self_attn.o_proj               32 × 32                  2    2,048
block_sparse_moe.experts.*.w1  64 × 32                  8   16,384
block_sparse_moe.experts.*.w3  64 × 32                  8   16,384
block_sparse_moe.experts.*.w2  32 × 64                  8   16,384

left out                         for example                                  tensors  weights
token embedding                  model.embed_tokens.weight                          1   10,240
router                           model.layers.0.block_sparse_moe.gate.weight        2      256
norms, biases and other vectors  model.layers.0.input_layernorm.weight              4      128
outside the blocks               model.norm.weight                                  1       32
head                             lm_head.weight                                     1   10,240

merged_n: not possible, since model.layers.0 has experts
""",
    "gpt2": """\
gpt2: gpt2, 2 blocks in transformer.h
token embedding transformer.wte.weight, head tied to the token embedding
39,808 parameters, of which 24,576 (61.7%) are prunable

prunable     outputs × inputs  matrices  weights
attn.c_attn  96 × 32                  2    6,144
attn.c_proj  32 × 32                  2    2,048
mlp.c_fc     128 × 32                 2    8,192
mlp.c_proj   32 × 128                 2    8,192

left out                           for example                  tensors  weights
token embedding, tied to the head  transformer.wte.weight             1   10,240
outside the blocks                 transformer.wpe.weight             3    4,160
norms, biases and other vectors    transformer.h.0.ln_1.weight       16      832

merged_n: 128 neurons per block, in mlp.c_fc.weight, mlp.c_fc.bias, mlp.c_proj.weight, mlp.c_proj.bias
""",
}


@pytest.mark.parametrize("config", [MIXTRAL, GPT2], ids=["mixtral", "gpt2"])
def test_what_is_found_is_printed(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_stage: Callable[..., Finished]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / config["model_type"]
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    finished = run_stage("describe", config["model_type"])
    assert (finished.status, finished.out) == (0, SAYS[config["model_type"]])


def test_a_folder_without_a_config_is_one_line(run_stage: Callable[..., Finished], tmp_path: Path) -> None:
    finished = run_stage("describe", str(tmp_path))
    assert finished.status == 1
    assert finished.err == f"error: describe: {tmp_path}: holds no config.json; give a Hugging Face model folder\n"
