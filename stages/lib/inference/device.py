"""Device and dtype, chosen in one place, and the switches that make a run deterministic."""

import os
from dataclasses import dataclass
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
