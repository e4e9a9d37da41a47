"""Tiny random models of many architectures, and the number of their prunable weights by hand."""

import math
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

VOCABULARY, HIDDEN, INNER, BLOCKS, HEADS, FEW_HEADS, EXPERTS = 320, 32, 48, 4, 4, 2, 4

SPECIAL = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
MODERN = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": FEW_HEADS,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    **SPECIAL,
}
WIDE = {**MODERN, "head_dim": 16}
OF_GPT2 = {"vocab_size": VOCABULARY, "n_embd": HIDDEN, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": 128}
OF_BLOOM = {"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "n_layer": BLOCKS, "n_head": HEADS, **SPECIAL}
SOME_EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {**MODERN, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
    "mistral": {**MODERN, "sliding_window": 8},
    "qwen2": {**MODERN, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "qwen3": {**WIDE, "tie_word_embeddings": True},
    "gemma": WIDE,
    "gemma2": {**WIDE, "sliding_window": 8, "query_pre_attn_scalar": 16, "final_logit_softcapping": 2.0},
    "gemma3_text": {**WIDE, "sliding_window": 8, "query_pre_attn_scalar": 16, "sliding_window_pattern": 2},
    "phi": {**MODERN, "partial_rotary_factor": 0.5},
    "phi3": MODERN,
    "olmo": {**MODERN, "clip_qkv": 4.0},
    "olmo2": MODERN,
    "granite": {**MODERN, "logits_scaling": 3.0, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    "cohere": {**MODERN, "logit_scale": 0.3, "use_qk_norm": True},
    "stablelm": {**MODERN, "use_qkv_bias": True},
    "starcoder2": MODERN,
    "smollm3": {**MODERN, "no_rope_layer_interval": 2},
    "glm4": WIDE,
    "nemotron": {**WIDE, "head_dim": 8},
    "exaone4": {**MODERN, "sliding_window": 8, "sliding_window_pattern": 2},
    "gpt_neox": {**MODERN, "use_parallel_residual": False},
    "opt": {
        **{"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "ffn_dim": INNER, "num_hidden_layers": BLOCKS},
        **{"num_attention_heads": HEADS, "max_position_embeddings": 128, "init_std": 0.2, **SPECIAL},
        **{"word_embed_proj_dim": 16, "do_layer_norm_before": False},  # as in OPT-350m
    },
    "gpt2": {**OF_GPT2, **SPECIAL},
    "openai-gpt": {**OF_GPT2, **SPECIAL},
    "gpt_neo": {
        **{"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_layers": BLOCKS, "num_heads": HEADS, **SPECIAL},
        **{"max_position_embeddings": 128, "attention_types": [[["global", "local"], 2]], "window_size": 8},
    },
    "gptj": {**OF_GPT2, **SPECIAL, "rotary_dim": 4},
    "bloom": OF_BLOOM,
    "falcon": {
        **{"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, **SPECIAL},
        **{"num_attention_heads": HEADS, "multi_query": True, "parallel_attn": True},
    },
    "gpt_bigcode": {**OF_GPT2, **SPECIAL, "multi_query": True},
    "codegen": {**OF_GPT2, **SPECIAL, "rotary_dim": 4},
    "mpt": {"vocab_size": VOCABULARY, "d_model": HIDDEN, "n_layers": BLOCKS, "n_heads": HEADS, "max_seq_len": 128},
    "mixtral": {**MODERN, "num_local_experts": EXPERTS},
    "qwen2_moe": {**MODERN, **SOME_EXPERTS, "num_experts": EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**WIDE, **SOME_EXPERTS, "num_experts": EXPERTS},
    "olmoe": {**MODERN, "num_experts": EXPERTS, "num_experts_per_tok": 2},
    "gpt_oss": {**WIDE, "num_local_experts": EXPERTS, "num_experts_per_tok": 2, "sliding_window": 8},
    "mamba": {
        **{"vocab_size": VOCABULARY, "hidden_size": HIDDEN, "num_hidden_layers": BLOCKS, "state_size": 6, **SPECIAL},
    },
}
"""By `model_type`; features that a plain Llama lacks are switched on: windows, caps, scales, biases."""

WITH_EXPERTS = {"mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"}


def _attention(heads: int = HEADS, few: int = HEADS, width: int = HIDDEN // HEADS) -> int:
    """Queries and output for all heads, keys and values for a few."""
    return 2 * HIDDEN * heads * width + 2 * HIDDEN * few * width


GROUPED = _attention(few=FEW_HEADS)
GROUPED_WIDE = _attention(few=FEW_HEADS, width=16)
ONE_KEY = _attention(few=1)
GATED, PLAIN, PLAIN_BY_FOUR = 3 * HIDDEN * INNER, 2 * HIDDEN * INNER, 2 * HIDDEN * 4 * HIDDEN
RANK = math.ceil(HIDDEN / 16)

PRUNABLE: dict[str, int] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "phi3", "olmo", "olmo2", "granite"), GROUPED + GATED),
    **dict.fromkeys(("cohere", "stablelm", "smollm3", "exaone4"), GROUPED + GATED),
    **dict.fromkeys(("qwen3", "gemma", "gemma2", "gemma3_text", "glm4"), GROUPED_WIDE + GATED),
    **dict.fromkeys(("phi", "starcoder2", "nemotron"), GROUPED + PLAIN),
    **dict.fromkeys(("gpt_neox", "opt"), _attention() + PLAIN),
    **dict.fromkeys(("gpt2", "openai-gpt", "gpt_neo", "gptj", "bloom", "codegen", "mpt"), _attention() + PLAIN_BY_FOUR),
    **dict.fromkeys(("falcon", "gpt_bigcode"), ONE_KEY + PLAIN_BY_FOUR),
    "mixtral": GROUPED + EXPERTS * GATED,
    "qwen2_moe": GROUPED + EXPERTS * 3 * HIDDEN * 24 + 3 * HIDDEN * 40,
    "qwen3_moe": GROUPED_WIDE + EXPERTS * 3 * HIDDEN * 24,
    "olmoe": GROUPED + EXPERTS * GATED,
    "gpt_oss": GROUPED_WIDE + EXPERTS * GATED,
    "mamba": HIDDEN * 4 * HIDDEN + 2 * HIDDEN * (RANK + 2 * 6) + 2 * HIDDEN * HIDDEN,  # in, states, out
}
"""By `model_type`, the prunable weights of one block."""

IDLE = {
    **dict.fromkeys(("mixtral", "olmoe", "gpt_oss"), (EXPERTS - 2) * GATED),
    **dict.fromkeys(("qwen2_moe", "qwen3_moe"), (EXPERTS - 2) * 3 * HIDDEN * 24),
}
"""The prunable weights of one block that a token does not pass: of experts that are not chosen."""
PASSED = {
    **dict.fromkeys(WITH_EXPERTS, EXPERTS * HIDDEN),  # the router
    "qwen2_moe": EXPERTS * HIDDEN + HIDDEN,  # and the gate of the shared expert
    "mamba": RANK * 2 * HIDDEN + 2 * HIDDEN * 6,  # the step size, and the states read out
}
"""Beside prunable weights, those of one block that a token is multiplied with."""
FEATURES = {"opt": 16}
WIDE_ATTENTION = ("qwen3", "gemma", "gemma2", "gemma3_text", "glm4", "qwen3_moe", "gpt_oss")


def operations(model_type: str, context: int) -> int:
    """The operations in matrix products for one token with `context` tokens in view, from the config by hand."""
    passed = PRUNABLE[model_type] - IDLE.get(model_type, 0) + PASSED.get(model_type, 0)
    width = 0 if model_type == "mamba" else HEADS * (16 if model_type in WIDE_ATTENTION else 8)
    features = FEATURES.get(model_type, HIDDEN)
    around = VOCABULARY * features + (2 * HIDDEN * features if features != HIDDEN else 0)
    return 2 * (BLOCKS * passed + around) + BLOCKS * 2 * 2 * context * width


def tiny(model_type: str) -> PreTrainedModel:
    """A random model, with norms and biases that are not the ones and zeros of a new model."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **CONFIGS[model_type]))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model.eval()
