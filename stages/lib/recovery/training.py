"""Recovery: trains a compressed model for some steps, what is zero in its matrices held at zero.

Two objectives. `distill` draws each token's prediction towards the original's, KL(original ‖ model)
over the whole vocabulary (Hinton et al., 2015, "Distilling the Knowledge in a Neural Network", at
temperature 1), so every token teaches as much as a vocabulary holds. `lm` is the usual cross entropy
of the next token. In matrices, a gradient is set to zero where its weight is; without weight decay,
AdamW then moves no such weight (Zhu & Gupta, 2017, "To prune, or not to prune", mask as well).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import SequentialSampler
from tqdm import tqdm
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from stages.lib.files.errors import UserError
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Recover
from stages.lib.files.hashing import checked_sums, write_sums

WARM_UP = 0.1
"""Of the steps, in which the learning rate rises; it falls as a cosine afterwards."""
LARGEST_GRADIENT = 1.0
"""The norm to which a step's gradient is cut."""
SAVED = 4
"""How often a run's state is saved, evenly over its steps; the last one is its result."""


def recover(
    student: Loaded, teacher: Loaded | None, windows: Sequence[torch.Tensor], settings: Recover, seed: int, folder: Path
) -> list[dict[str, float]]:
    """Train a model in place on windows of tokens, in their order; each step's loss and learning rate.

    The state is saved into `folder` on the way, and a run that finds one there goes on from it, to
    the same weights. `teacher` is the original, for the objective `distill`. Raises UserError if
    loss or gradient is no longer finite; what was saved before stays.
    """
    for module in student.model.modules():
        if isinstance(module, nn.Dropout):  # noise against overfitting, which so few steps do not come to
            module.p = 0.0
    matrices = {name: weight for name, weight in student.model.named_parameters() if weight.ndim > 1}
    kept = {name: weight != 0 for name, weight in matrices.items()}
    for name, weight in matrices.items():
        weight.register_post_accumulate_grad_hook(_only(kept[name]))
    trainer = _Trainer(
        model=student.model,
        args=_arguments(settings, seed, folder, student.device),
        train_dataset=[{"input_ids": window} for window in windows],
        callbacks=[_Watch()],
        teacher=None if teacher is None else teacher.model.requires_grad_(False),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_newest_whole(folder))
    student.model.eval()
    revived = sum(int(torch.count_nonzero(weight[~kept[name].to(weight.device)])) for name, weight in matrices.items())
    if revived:
        raise AssertionError(f"{revived} pruned weights are not zero after recovery")
    return [
        {"step": log["step"], "loss": log["loss"], "learning_rate": log["learning_rate"]}
        for log in trainer.state.log_history
        if "loss" in log
    ]


def _only(kept: torch.Tensor) -> Any:
    """A hook that leaves a gradient to the weights that are kept."""

    def hold(weight: torch.Tensor) -> None:
        assert weight.grad is not None
        weight.grad.mul_(kept.to(weight.device))

    return hold


def _arguments(settings: Recover, seed: int, folder: Path, device: torch.device) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=settings.windows_per_step,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(WARM_UP * settings.steps),
        weight_decay=0.0,
        max_grad_norm=LARGEST_GRADIENT,
        seed=seed,
        save_steps=math.ceil(settings.steps / SAVED),
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        use_cpu=device.type == "cpu",
        disable_tqdm=True,
        report_to=[],
    )


class _Trainer(Trainer):  # type: ignore[misc]
    """Reads the windows in their order, and takes either objective."""

    def __init__(self, teacher: nn.Module | None, **named: Any) -> None:
        super().__init__(**named)
        self._teacher = teacher
        self.model_accepts_loss_kwargs = False  # the loss below is a mean over one batch

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], *others: Any, **named: Any
    ) -> torch.Tensor:
        tokens = inputs["input_ids"]
        predicted = functional.log_softmax(model(input_ids=tokens, use_cache=False).logits[:, :-1].float(), dim=-1)
        if self._teacher is None:
            loss = functional.nll_loss(predicted.flatten(end_dim=1), tokens[:, 1:].flatten())
        else:
            with torch.no_grad():
                wanted = self._teacher(input_ids=tokens, use_cache=False).logits[:, :-1].float().log_softmax(dim=-1)
            loss = functional.kl_div(predicted, wanted, reduction="none", log_target=True).sum(dim=-1).mean()
        _check_finite(loss, "loss", self.args.output_dir)
        return loss


class _Watch(TrainerCallback):  # type: ignore[misc]
    """Shows progress, seals what is saved, and stops before a step that would ruin the weights."""

    def __init__(self) -> None:
        self._progress: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self._progress = tqdm(total=state.max_steps, initial=state.global_step, unit="step", desc="recovery")

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, *, model: nn.Module, **named: Any) -> None:
        norms = torch.stack([weight.grad.norm() for weight in model.parameters() if weight.grad is not None])
        _check_finite(norms.sum(), "gradient", args.output_dir)

    def on_log(self, args: Any, state: Any, control: Any, *, logs: dict[str, float], **named: Any) -> None:
        if "loss" in logs:
            self._progress.set_postfix(loss=f"{logs['loss']:.3f}", refresh=False)
            self._progress.update(state.global_step - self._progress.n)

    def on_save(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        write_sums(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    def on_train_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
        self._progress.close()


def _check_finite(value: torch.Tensor, what: str, folder: str) -> None:
    if not torch.isfinite(value):
        kept = _newest_whole(Path(folder))
        raise UserError(
            f"recovery diverged, its {what} is not finite; lower recover.learning_rate in params.yaml "
            + (f"(the last good state is kept in {kept})" if kept else "(no state had been saved)")
        )


def _newest_whole(folder: Path) -> str | None:
    """The newest saved state that is what its sums say: a kill while one is saved leaves a part of it."""
    states = sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2]))
    for state in states:
        try:
            checked_sums(state)
        except UserError:
            continue
        return str(state)
    return None
