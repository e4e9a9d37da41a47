"""Steps of AdamW, with the zeros in matrices held at zero.

In matrices, a gradient is set to zero where its weight is zero; without weight decay, AdamW then moves no such weight
(Zhu & Gupta, 2017, "To prune, or not to prune", mask as well).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from stages.lib.files.errors import UserError
from stages.lib.inference.device import check_before_steps
from stages.lib.inference.loading import Loaded
from stages.lib.recovery.schedule import learning_rates, peak_rate
from stages.lib.recovery.states import newest_state

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover

LARGEST_GRADIENT = 1.0
"""The norm to which a step's gradient is clipped."""


def unfreeze(student: Loaded, settings: "Recover") -> list[nn.Parameter]:
    """Let gradients be computed for the parameters that `recover.weights` trains, and for no others; returns them."""
    wanted = {
        "all": list(student.model.parameters()),
        "blocks": [parameter for block in student.blocks for parameter in block.parameters()],
        "norms": [parameter for parameter in student.model.parameters() if parameter.ndim == 1],
    }[settings.weights]
    student.model.requires_grad_(False)
    for parameter in wanted:
        parameter.requires_grad_(True)
    return list(dict.fromkeys(wanted))  # merged blocks share theirs


class Steps:
    """Takes the steps of a run, or of one block's part in it, on some weights."""

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        settings: "Recover",
        peak: Literal["learning_rate", "blocks_learning_rate"],
        dtype: torch.dtype,
        folder: Path,
        first: bool = True,
    ) -> None:
        """`peak` names the setting of the highest learning rate, `dtype` is that of computation, `folder` holds saved
        states; `first`: no weight has been trained before."""
        self._weights = list(weights)
        self._zeros = [(weight, weight == 0) for weight in self._weights if weight.ndim > 1]
        self._settings = settings
        self._rates: list[float] = []
        self._peak = peak
        self._dtype = dtype
        self._folder = folder
        self._first = first
        self.optimizer = torch.optim.AdamW(self._weights, weight_decay=0.0, fused=True)

    def plan_rates(self, first_loss: float) -> None:
        """Fix the learning rate of each step by the loss of the first one."""
        peak = peak_rate(getattr(self._settings, self._peak), first_loss)
        self._rates = learning_rates(self._settings.steps, peak)

    def take(self, step: int, losses: Iterable[torch.Tensor]) -> dict[str, float]:
        """Take a step, counted from 0; its row of the log.

        `losses` are the terms of its loss: each is differentiated before the next one is asked for, so only one
        term's activations are held. Raises UserError if loss or gradient is not finite.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for loss in losses:
            self._check(loss, "loss", "losses")
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        if not self._rates:
            self.plan_rates(total)
        for weight, mask in self._zeros:
            if weight.grad is not None:  # it is None if no token reached it, as in some experts
                weight.grad.masked_fill_(mask, 0)
        self._check(nn.utils.clip_grad_norm_(self._weights, LARGEST_GRADIENT), "gradient", "gradients")
        for group in self.optimizer.param_groups:
            group["lr"] = self._rates[step]
        self.optimizer.step()
        return {"step": step + 1, "loss": total, "learning_rate": self._rates[step]}

    def _check(self, value: torch.Tensor, name: str, several: str) -> None:
        if self._first:
            check_before_steps(value, self.optimizer, f"{several} of recovery", self._dtype)
        self.check_converging(value, name)

    def check_converging(self, value: torch.Tensor, name: str) -> None:
        """Raise UserError if a loss or gradient is not finite."""
        if not torch.isfinite(value):
            kept = newest_state(self._folder)
            raise UserError(
                f"recovery diverged (its {name} is not finite); lower recover.{self._peak} in params.yaml "
                + (f"(the last good state is kept in {kept})" if kept else "(no state had been saved)")
            )

    def check_zeros(self) -> None:
        """Raise AssertionError if a weight is no longer zero."""
        revived = sum(int(torch.count_nonzero(weight[mask])) for weight, mask in self._zeros)
        if revived:
            raise AssertionError(f"{revived} pruned weights are not zero after recovery")
