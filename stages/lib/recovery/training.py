"""Trains a compressed model for some steps, with the zeros in its matrices held at zero.

Two objectives. `distill` draws each token's prediction towards the original's, KL(original ‖ model) over the whole
vocabulary (Hinton et al., 2015, "Distilling the Knowledge in a Neural Network", at temperature 1), so every token
teaches a whole distribution. `lm` is the usual cross entropy of the next token. In matrices, a gradient is set to
zero where its weight is zero; without weight decay, AdamW then moves no such weight (Zhu & Gupta, 2017, "To prune, or
not to prune", mask as well).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.files.sampling import shuffled
from stages.lib.inference.calibration import beginning_of
from stages.lib.inference.device import check_before_steps
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import room_for_text
from stages.lib.recovery.schedule import learning_rate, window_tokens, windows_per_step
from stages.lib.recovery.states import Log, load_state, newest_state, save_state

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover

LARGEST_GRADIENT = 1.0
"""The norm to which a step's gradient is clipped."""
SAVED = 4
"""How often a run's state is saved, evenly over its steps."""


def train(
    student: Loaded, teacher: Loaded | None, windows: Sequence[torch.Tensor], settings: "Recover", folder: Path
) -> Log:
    """Train a model in place on windows of tokens, in their order; each step's loss and learning rate.

    The state is saved into `folder` along the way, and a run that finds one there resumes from it, to the same
    weights. `teacher` is the original, for the objective `distill`. Raises UserError if loss or gradient is no
    longer finite; earlier states are kept.
    """
    model = student.model.eval()  # without dropout, which so few steps do not need
    zeros = {name: weight == 0 for name, weight in model.named_parameters() if weight.ndim > 1}
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    state = newest_state(folder)
    log = load_state(state, model, optimizer) if state else []
    per_step, save_every = windows_per_step(settings), math.ceil(settings.steps / SAVED)
    progress = tqdm(
        range(len(log), settings.steps), initial=len(log), total=settings.steps, unit="step", desc="recovery"
    )
    for step in progress:
        rate = learning_rate(step, settings)
        batch = windows[step * per_step : (step + 1) * per_step]
        loss = _step(student, teacher, batch, zeros, optimizer, rate, folder)
        log.append({"step": step + 1, "loss": loss, "learning_rate": rate})
        progress.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if (step + 1) % save_every == 0 or step + 1 == settings.steps:
            with torch.no_grad():  # a saved state is a good one
                _check_converging(_loss(student, teacher, batch[-1][None].to(student.device)), "loss", folder)
            save_state(folder, model, optimizer, log)
    revived = sum(int(torch.count_nonzero(model.get_parameter(name)[mask])) for name, mask in zeros.items())
    if revived:
        raise AssertionError(f"{revived} pruned weights are not zero after recovery")
    return log


def _step(
    student: Loaded,
    teacher: Loaded | None,
    windows: Sequence[torch.Tensor],
    zeros: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    rate: float,
    folder: Path,
) -> float:
    """One step of the optimizer over some windows; returns their mean loss."""
    model = student.model
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    for window in windows:
        loss = _loss(student, teacher, window[None].to(student.device)) / len(windows)
        check_before_steps(loss, optimizer, "losses of recovery", student.runs_on.dtype)
        _check_converging(loss, "loss", folder)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    for name, mask in zeros.items():
        gradient = model.get_parameter(name).grad
        if gradient is not None:  # no token of the windows came past it
            gradient.masked_fill_(mask, 0)
    norm = nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
    check_before_steps(norm, optimizer, "gradients of recovery", student.runs_on.dtype)
    _check_converging(norm, "gradient", folder)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    return total


def _loss(student: Loaded, teacher: Loaded | None, tokens: torch.Tensor) -> torch.Tensor:
    """The mean loss over the text's predicted tokens. Shape of `tokens`: (1, tokens)."""
    first = student.first_target  # special tokens before it are read, but there is nothing to learn of them
    predicted = _log_probabilities(student, tokens, first)
    if teacher is None:
        return functional.nll_loss(predicted.flatten(end_dim=1), tokens[:, first:].flatten())
    with torch.no_grad():
        wanted = _log_probabilities(teacher, tokens, first)
    return functional.kl_div(predicted, wanted, reduction="none", log_target=True).sum(dim=-1).mean()


def _log_probabilities(loaded: Loaded, tokens: torch.Tensor, first: int) -> torch.Tensor:
    """Of the tokens from `first` (1 or more) on, each given those before it. Shape: (1, tokens - first, vocabulary)."""
    with loaded.runs_on.autocast():
        logits: torch.Tensor = loaded.model(input_ids=tokens, use_cache=False).logits[:, first - 1 : -1]
    return logits.float().log_softmax(dim=-1)


def _check_converging(value: torch.Tensor, name: str, folder: Path) -> None:
    if not torch.isfinite(value):
        kept = newest_state(folder)
        raise UserError(
            f"recovery diverged (its {name} is not finite); lower recover.learning_rate in params.yaml "
            + (f"(the last good state is kept in {kept})" if kept else "(no state had been saved)")
        )


def training_windows(loaded: Loaded, documents: Sequence[str], settings: "Recover", seed: int) -> list[torch.Tensor]:
    """All windows of all steps, each of shape (tokens,).

    Documents are drawn by the seed until there are tokens for all steps; if the text has fewer, its windows are
    repeated, each time in another order. Each window begins with the special tokens that the tokenizer puts before a
    text. Raises UserError if the text is shorter than a window, or a window is longer than the model's context or has
    no room for the text.
    """
    length = window_tokens(settings)
    if length > loaded.context_length:
        raise UserError(
            f"recover.tokens_per_step is {settings.tokens_per_step}, the model takes {loaded.context_length} tokens; "
            "lower it to that in params.yaml"
        )
    first = loaded.first_tokens
    room = room_for_text(length, len(first), "recover.tokens_per_step")
    needed = settings.steps * windows_per_step(settings)
    ids = beginning_of(loaded, shuffled(documents, seed), needed * room)
    there = len(ids) // room
    if there == 0:
        raise UserError(
            f"the training text has {len(ids)} tokens, fewer than a window of {length}; lower "
            "recover.tokens_per_step in params.yaml, or leave more of the text for training"
        )
    text = torch.tensor([[*first, *ids[begin : begin + room]] for begin in range(0, there * room, room)])
    random = np.random.default_rng(seed)
    order = np.concatenate([random.permutation(there) for _ in range(0, needed, there)])[:needed]
    return list(text[torch.from_numpy(order)])
