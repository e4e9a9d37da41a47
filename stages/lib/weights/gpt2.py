"""GPT-2: `Conv1D` layers, which keep their weights as (in, out), a fused qkv, a tied head.

Its only `nn.Linear` is the tied head: selecting layers by that class prunes the token embedding
and leaves every block untouched.
"""

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
