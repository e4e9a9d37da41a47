"""Fine-tunes a whole model for classification, with pruned weights held at zero."""

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.inference.batches import by_length, features, last_states
from stages.lib.inference.device import check_before_steps
from stages.lib.inference.loading import Loaded

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Classify

Labels = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

INITIAL_DEVIATION = 0.02
"""Of the head's weights, where the model's config gives none."""
BATCHES_SORTED_TOGETHER = 50
"""Texts are sorted by length within this many batches, so that the order stays close to random."""


def fine_tune(
    loaded: Loaded,
    train: Sequence[Sequence[int]],
    labels: Labels,
    test: Sequence[Sequence[int]],
    settings: "Classify",
    classes: int,
    seed: int,
) -> Probabilities:
    """Train body and head with AdamW and a linear decay; each test row's class probabilities.

    After every step the weights under `loaded.masks` are set to zero again. Raises UserError if the loss is no longer
    finite.
    """
    torch.manual_seed(seed)
    head = nn.Linear(loaded.width, classes, dtype=torch.float32)
    nn.init.normal_(head.weight, std=getattr(loaded.model.config, "initializer_range", INITIAL_DEVIATION))
    nn.init.zeros_(head.bias)
    head.to(loaded.device)
    plan = [batch for epoch in range(settings.epochs) for batch in _epoch(train, settings.batch_size, seed + epoch)]
    weights = [*loaded.body.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=len(plan))
    loaded.model.train()

    def loss_of(batch: Sequence[int]) -> torch.Tensor:
        logits = head(last_states(loaded, [train[index] for index in batch]).float())
        loss = functional.cross_entropy(logits, torch.as_tensor(labels[list(batch)], device=logits.device))
        check_before_steps(loss, optimizer, "losses of fine-tuning", loaded.runs_on.dtype)
        if not torch.isfinite(loss):
            raise UserError(
                "fine-tuning diverged (its loss is not finite); lower classify.learning_rate in params.yaml"
            )
        return loss

    progress = tqdm(plan, unit="step", desc="fine-tuning")
    for batch in progress:
        loss = loss_of(batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        hold_masks(loaded)
        progress.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    loaded.model.eval()
    with torch.no_grad():
        loss_of(plan[-1])  # the last step may be the one that diverges
    revived = sum(bool(loaded.weights[name][mask].any()) for name, mask in loaded.masks.items())
    if revived:
        raise AssertionError(f"pruned weights of {revived} matrices are not zero after fine-tuning")
    states = torch.from_numpy(features(loaded, test, settings.batch_size)).to(loaded.device)
    with torch.inference_mode():
        probabilities: Probabilities = functional.softmax(head(states).cpu().double(), dim=1).numpy()
    return probabilities


def _epoch(train: Sequence[Sequence[int]], batch_size: int, seed: int) -> Iterator[list[int]]:
    """Batches of one epoch: shuffled, with texts of similar length together."""
    generator = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    order = list(range(len(train)))
    generator.shuffle(order)
    pool = batch_size * BATCHES_SORTED_TOGETHER
    for start in range(0, len(order), pool):
        part = order[start : start + pool]
        batches = list(by_length([len(train[index]) for index in part], batch_size))
        generator.shuffle(batches)
        yield from ([part[index] for index in batch] for batch in batches)


@torch.no_grad()
def hold_masks(loaded: Loaded) -> None:
    """Set every pruned weight to zero again."""
    for name, mask in loaded.masks.items():
        loaded.weights[name].masked_fill_(mask, 0)
