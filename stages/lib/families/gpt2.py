"""GPT-2: `Conv1D` layers, which keep their weights as (in, out), a fused qkv, a tied head.

Its only `nn.Linear` is the tied head: selecting layers by that class prunes the token embedding
and leaves every block untouched.
"""

from stages.lib.families.family import Family

GPT2 = Family(
    model_type="gpt2",
    depth_key="n_layer",
    block="transformer.h.{}",
    matrices=("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
)
