"""The known model families, and the lookup of a model folder's family."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.lib.files.errors import UserError
from stages.lib.weights.family import Family, FeedForward

GPT2 = Family(
    model_type="gpt2",
    depth_key="n_layer",
    block="transformer.h.{}",
    matrices=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
    embedding="transformer.wte.weight",
    input_axis=0,
    feed_forward=FeedForward(
        pre_activations=("mlp.c_fc",),
        neuron_axes={"mlp.c_fc.weight": 1, "mlp.c_fc.bias": 0, "mlp.c_proj.weight": 0, "mlp.c_proj.bias": None},
    ),
)
"""GPT-2: `Conv1D` layers, which keep their weights as (in, out), a fused qkv, a tied head.

Its only `nn.Linear` is the tied head: selecting layers by that class prunes the token embedding
and leaves every block untouched.
"""

LLAMA = Family(
    model_type="llama",
    depth_key="num_hidden_layers",
    block="model.layers.{}",
    matrices=(
        *("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"),
        *("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
    ),
    embedding="model.embed_tokens.weight",
    feed_forward=FeedForward(
        pre_activations=("mlp.gate_proj", "mlp.up_proj"),
        neuron_axes={
            "mlp.gate_proj.weight": 0,
            "mlp.gate_proj.bias": 0,  # biases only where the config's mlp_bias is true
            "mlp.up_proj.weight": 0,
            "mlp.up_proj.bias": 0,
            "mlp.down_proj.weight": 1,
            "mlp.down_proj.bias": None,
        },
    ),
)
"""Llama, SmolLM2 among them: `Linear` layers, grouped-query attention, a gated feed-forward.

A neuron of the gated feed-forward is a row of gate, the same row of up, and a column of down.
"""

FAMILIES = {family.model_type: family for family in (GPT2, LLAMA)}


def read_config(model: Path) -> dict[str, Any]:
    """The content of a model folder's `config.json`. Raises UserError if there is none, or it is not JSON."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{model}: holds no config.json; give a Hugging Face model folder") from None
    except ValueError as error:
        raise UserError(f"{model}/config.json: not JSON ({error}); fetch it again") from None
    if not isinstance(config, dict):
        raise UserError(f"{model}/config.json: not a JSON object; fetch it again")
    return config


def family_of(model: Path, config: Mapping[str, Any] | None = None) -> Family:
    """The family of a model folder. Raises UserError for an architecture that no family describes."""
    model_type = (config or read_config(model)).get("model_type")
    if model_type not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise UserError(
            f"{model}: model_type {model_type!r} is not a known family ({known}); "
            "describe it in stages/lib/weights/families.py"
        )
    return FAMILIES[model_type]
