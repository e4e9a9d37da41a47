"""Llama, SmolLM2 among them: `Linear` layers, grouped-query attention, a gated feed-forward.

A neuron of the gated feed-forward is a row of gate, the same row of up, and a column of down.
"""

from stages.lib.weights.family import Family, FeedForward

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
