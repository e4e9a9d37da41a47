"""The windows in each step of recovery, and its learning rate."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover

TRAINING_WINDOW = 512
"""The most tokens that recovery reads together; a larger step consists of several windows."""
WARM_UP = 0.1
"""The share of the steps over which the learning rate rises; it falls as a cosine afterwards."""


def window_tokens(settings: "Recover") -> int:
    """Tokens in a window of training text."""
    return min(TRAINING_WINDOW, settings.tokens_per_step)


def windows_per_step(settings: "Recover") -> int:
    return settings.tokens_per_step // window_tokens(settings)


def learning_rate(step: int, settings: "Recover") -> float:
    """The learning rate of a step, counted from 0; above 0 in every step."""
    warm_up = math.ceil(WARM_UP * settings.steps)
    if step < warm_up:
        return settings.learning_rate * (step + 1) / warm_up
    progress = (step - warm_up) / (settings.steps - warm_up)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2
