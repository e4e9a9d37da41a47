"""Device and dtype, chosen in one place, and the switches that make a run deterministic."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from stages.lib.files.errors import UserError

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Compute


@dataclass(frozen=True)
class Device:
    """The device and the precision in which a model runs."""

    device: torch.device
    dtype: torch.dtype
    """Of computation, and of weights that are not trained."""
    trains: bool = False
    """Whether weights are in float32 whatever `dtype` is: a step of training is too small for fewer bits."""

    def for_training(self) -> "Device":
        """The same device for a model that is trained; in place of float16, which needs its losses scaled, float32."""
        return replace(self, dtype=torch.float32 if self.dtype == torch.float16 else self.dtype, trains=True)

    def autocast(self) -> AbstractContextManager[None]:
        """Computes in `dtype` with weights in float32; without effect where the weights are in `dtype`."""
        if not self.trains or self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)


def set_up(compute: "Compute", seed: int) -> Device:
    """Choose the device, seed all generators, make kernels deterministic. Raises UserError if the device is absent."""
    if compute.threads:
        torch.set_num_threads(compute.threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by deterministic cuBLAS
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(seed)
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    wanted = compute.device if compute.device != "auto" else "cuda" if there["cuda"] else "cpu"
    if not there[wanted]:
        raise UserError(f"compute.device is {wanted}, which this machine or this torch lacks; use auto or cpu")
    return Device(torch.device(wanted), getattr(torch, compute.dtype))


def check_finite(values: torch.Tensor, what: str, dtype: torch.dtype) -> None:
    """Raise UserError if a value that a model computed in some dtype is NaN or infinite."""
    if not torch.isfinite(values).all():
        remedy = "repair the model" if dtype == torch.float32 else "set compute.dtype to float32 in params.yaml"
        raise UserError(f"{what} are not finite in {str(dtype).removeprefix('torch.')}; {remedy}")


def check_before_steps(values: torch.Tensor, optimizer: torch.optim.Optimizer, what: str, dtype: torch.dtype) -> None:
    """Raise as `check_finite` before the optimizer's first step, when no learning rate is at fault."""
    if not optimizer.state:
        check_finite(values.detach(), f"the first {what}", dtype)
