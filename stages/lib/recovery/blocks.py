"""Trains a compressed model one block at a time to reproduce the original's hidden states: block-wise reconstruction.

A block's input is the output of the compressed blocks before it, which are already trained; its target is the output of
the original's block on the original's own input. Training thus also corrects the errors that earlier blocks have left.
Wagner, Roux, Zimmer & Pokutta (2025), "A Free Lunch in LLM Compression: Revisiting Retraining after Pruning", arXiv
2510.14444, find that such training of blocks recovers as much as training the whole model, on a tenth of the data. Li
et al. (2021), "BRECQ", ICLR, reconstruct quantized blocks. Neither embeddings nor head are trained, and no logits are
computed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch

from stages.lib.files.errors import UserError
from stages.lib.inference.blockwise import BlockRun, through_blocks
from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded
from stages.lib.recovery.optimizing import Steps, unfreeze
from stages.lib.recovery.schedule import windows_per_step
from stages.lib.recovery.states import Log, SavePoints, load_state, newest_state, save_state

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Recover

_States: TypeAlias = Sequence[torch.Tensor]
"""By window, hidden states. Shape: (1, tokens, hidden)."""


def train_blocks(
    student: Loaded,
    teacher: Loaded,
    windows: Sequence[torch.Tensor],
    settings: "Recover",
    last: Sequence[int],
    folder: Path,
) -> Log:
    """Train a model's blocks in place, in order, each for all steps; each step's mean loss over the blocks.

    `teacher` is the original, and `last` has, by block of the model, the number of the original's block whose output it
    learns. The state is saved into `folder` after some of the blocks, and a run that finds one there resumes from it,
    to the same weights. What several blocks share is trained with the first of them and held in the others, which learn
    to use it. Raises UserError if the models' hidden states cannot be compared, or if loss or gradient is not finite.
    """
    model, blocks = student.model.eval(), len(student.blocks)
    state = newest_state(folder)
    log = load_state(state, model, None) if state else []
    done = int(log[-1]["block"]) + 1 if log else 0
    given = [window[None].to(student.device) for window in windows]
    saves = SavePoints(blocks)
    unfreeze(student, settings)
    pairs = zip(through_blocks(student, given), _outputs(teacher, given, last), strict=True)
    for number, (run, wanted) in enumerate(pairs):
        weights = [weight for weight in run.block.parameters() if weight.requires_grad]
        if number < done or not weights:
            run.block.requires_grad_(False)
            continue
        _check_target(run.inputs[0], wanted, teacher.runs_on.dtype)
        target = _Target(wanted, student.first_target)
        steps = Steps(weights, settings, "blocks_learning_rate", student.runs_on.dtype, folder, first=not log)
        log += [{"block": number, **row} for row in _train_block(run, target, steps, settings)]
        run.block.requires_grad_(False)  # what later blocks share is held there
        if saves.due(number + 1):
            save_state(folder, model, None, log)
    return _mean_over_blocks(log, settings.steps)


def _train_block(run: BlockRun, target: "_Target", steps: Steps, settings: "Recover") -> Log:
    per_step, log = windows_per_step(settings), []
    for step in range(settings.steps):
        batch = range(step * per_step, (step + 1) * per_step)
        log.append(steps.take(step, (target.loss(run, window) / per_step for window in batch)))
    with torch.no_grad():  # a saved state is a good one
        steps.check_converging(target.loss(run, len(run.inputs) - 1), "loss")
    steps.check_zeros()
    run.block.zero_grad(set_to_none=True)  # frees them
    return log


class _Target:
    """A block's target: the original's hidden states at the positions that predict the text's tokens."""

    def __init__(self, states: _States, first_target: int) -> None:
        self._positions = slice(first_target - 1, -1)
        self._states = [each[:, self._positions].float() for each in states]

    def loss(self, run: BlockRun, window: int) -> torch.Tensor:
        """The mean over positions of the squared error, relative to the squared norm of the original's hidden state.

        A few tokens, the first of a window above all, have states a hundred times as large as the others', and the
        norm of the next layer divides them by that.
        """
        wanted = self._states[window]
        errors = (run.on(window)[:, self._positions].float() - wanted).square().sum(dim=-1)
        return (errors / wanted.square().sum(dim=-1)).mean()


@torch.no_grad()
def _outputs(teacher: Loaded, windows: Sequence[torch.Tensor], last: Sequence[int]) -> Iterator[_States]:
    """The original's hidden states after each of the blocks in `last`, which has to end with the last block."""
    for number, run in enumerate(through_blocks(teacher, windows, progress=False)):
        if number - 1 in last:
            yield run.inputs  # what the block before gives
    yield run()


def _check_target(inputs: torch.Tensor, wanted: _States, dtype: torch.dtype) -> None:
    if inputs.shape != wanted[0].shape:
        raise UserError(
            f"a block gives {inputs.shape[-1]} features per token, the original's gives {wanted[0].shape[-1]}, "
            "so recover.objective blocks cannot compare them; set it to distill or lm in params.yaml"
        )
    for states in wanted:
        check_finite(states, "the hidden states of the original", dtype)


def _mean_over_blocks(log: Log, steps: int) -> Log:
    """By step, the mean of all blocks' losses."""
    by_step = [log[step::steps] for step in range(steps)]
    return [
        {
            "step": rows[0]["step"],
            "loss": sum(row["loss"] for row in rows) / len(rows),
            "learning_rate": rows[0]["learning_rate"],
        }
        for rows in by_step
    ]
