"""The floating-point operations that a model needs per token."""

from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stages.lib.inference.loading import Loaded


def _of_experts(tokens: torch.Size, weights: torch.Size, *others: Any, **named: Any) -> int:
    """Of products with one expert per token; shapes: (tokens, inputs) and (experts, inputs, outputs)."""
    return 2 * tokens.numel() * weights[-1]


_EXPERTS = {torch.ops.aten._grouped_mm: _of_experts}
"""Which torch does not count by itself."""
FEW, MORE = 2, 4
"""Lengths of the passes from which the operations at any length follow."""


def flops_per_token(loaded: Loaded, context: int) -> int:
    """The operations in matrix products for one token that attends to `context` tokens, itself included.

    A weight takes two of them, whether it is zero or not. Attention is counted in full, also where a layer's window is
    shorter. A pass of n tokens takes n·a + n²·b: every token passes the same weights, and every layer of attention
    multiplies all pairs of tokens. Two short passes give a and b.
    """
    few, more = (_flops(loaded, length) / length for length in (FEW, MORE))
    per_pair = (more - few) / (MORE - FEW)
    return round(few + per_pair * (context - FEW))


@torch.no_grad()
def _flops(loaded: Loaded, length: int) -> int:
    tokens = torch.zeros((1, length), dtype=torch.long, device=loaded.device)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=_EXPERTS) as counter:
        loaded.model(input_ids=tokens, use_cache=False)
    counts = counter.get_flop_counts()["Global"]
    return sum(count for operation, count in counts.items() if "conv" not in str(operation))
