"""Trains a compressed model as a whole for some steps, with the zeros in its matrices held at zero.

Two objectives. `distill` draws each token's prediction towards the original's, KL(original ‖ model) over the whole
vocabulary (Hinton et al., 2015, "Distilling the Knowledge in a Neural Network", at temperature 1), so every token
teaches a whole distribution. `lm` is the usual cross entropy of the next token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.files.sampling import shuffled
from stages.lib.inference.calibration import beginning_of
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import room_for_text
from stages.lib.recovery.optimizing import Steps, unfreeze
from stages.lib.recovery.schedule import window_tokens, windows_per_step
from stages.lib.recovery.states import Log, SavePoints, load_state, newest_state, save_state

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover


def train(
    student: Loaded, teacher: Loaded | None, windows: Sequence[torch.Tensor], settings: "Recover", folder: Path
) -> Log:
    """Train a model in place on windows of tokens, in their order; each step's loss and learning rate.

    The state is saved into `folder` along the way, and a run that finds one there resumes from it, to the same
    weights. `teacher` is the original, for the objective `distill`. Raises UserError if loss or gradient is no
    longer finite; earlier states are kept.
    """
    model = student.model.eval()  # without dropout, which so few steps do not need
    steps = Steps(unfreeze(student, settings), settings, "learning_rate", student.runs_on.dtype, folder)
    state = newest_state(folder)
    log = load_state(state, model, steps.optimizer) if state else []
    if log:
        steps.plan_rates(log[0]["loss"])
    per_step, saves = windows_per_step(settings), SavePoints(settings.steps)
    progress = tqdm(
        range(len(log), settings.steps), initial=len(log), total=settings.steps, unit="step", desc="recovery"
    )
    for step in progress:
        batch = [window[None].to(student.device) for window in windows[step * per_step : (step + 1) * per_step]]
        log.append(steps.take(step, (_loss(student, teacher, window) / len(batch) for window in batch)))
        progress.set_postfix(loss=f"{log[-1]['loss']:.3f}", refresh=False)
        due = saves.due(step + 1)
        if due or step + 1 == settings.steps:
            with torch.no_grad():  # a saved state is a good one, and so is what comes out
                steps.check_converging(_loss(student, teacher, batch[-1]), "loss")
        if due:
            save_state(folder, model, steps.optimizer, log)
    steps.check_zeros()
    return log


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
