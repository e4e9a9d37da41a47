"""Llama, SmolLM2 among them: `Linear` layers, grouped-query attention, a gated feed-forward."""

from stages.lib.families.family import Family

LLAMA = Family(
    model_type="llama",
    depth_key="num_hidden_layers",
    block="model.layers.{}",
    matrices=(
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ),
)
