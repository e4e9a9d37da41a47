"""The windows in each step of recovery, and its learning rates."""

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover

TRAINING_WINDOW = 512
"""The most tokens that recovery reads together; a larger step consists of several windows."""
WARM_UP = 0.1
"""The share of the steps over which the learning rate rises; it falls as a cosine afterwards."""
AUTO_RATE = 4e-4
"""The peak of the learning rate for a model whose predictions are a nat per token away from the original's, or more."""


def peak_rate(setting: float | Literal["auto"], first_loss: float) -> float:
    """The highest learning rate; auto: in proportion to the square root of the first step's loss, in nats per token.

    The square root of a KL divergence measures a distance, and the further a model is from the original, the longer are
    the steps that help it. Rounding may make the divergence of equal predictions a little less than 0.
    """
    return AUTO_RATE * math.sqrt(min(max(first_loss, 0), 1)) if setting == "auto" else setting


def window_tokens(settings: "Recover") -> int:
    """Tokens in a window of training text."""
    return min(TRAINING_WINDOW, settings.tokens_per_step)


def windows_per_step(settings: "Recover") -> int:
    return settings.tokens_per_step // window_tokens(settings)


def learning_rates(steps: int, peak: float) -> list[float]:
    """The learning rate of each step; all are above 0 if the peak is."""
    warm_up = math.ceil(WARM_UP * steps)
    rising = [peak * (step + 1) / warm_up for step in range(warm_up)]
    falling = steps - warm_up
    return rising + [peak * (1 + math.cos(math.pi * step / falling)) / 2 for step in range(falling)]
