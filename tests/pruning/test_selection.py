"""Selection against a naive reference: a stable sort of all magnitudes."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from stages.lib.files.errors import UserError
from stages.lib.pruning.selection import select
from stages.lib.recipes.choosing import Threshold
from stages.lib.recipes.magnitude import magnitude_masks
from stages.lib.recipes.masks import MaskDigest
from stages.lib.weights import checkpoint as checkpoint_module
from stages.lib.weights.checkpoint import Checkpoint

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@st.composite
def tensors(draw: st.DrawFn) -> list[torch.Tensor]:
    """Matrices of mixed dtypes whose few distinct values make many ties, zeros of both signs too."""
    seed = draw(st.integers(0, 2**32 - 1))
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
        levels = draw(st.sampled_from([2, 5, 1000]))
        scale = draw(st.sampled_from([1e-3, 1.0, 300.0]))
        values = torch.randint(-levels, levels + 1, shape, generator=generator) / levels * scale
        values = torch.where(torch.rand(shape, generator=generator) < 0.1, -0.0, values)
        made.append(values.to(draw(st.sampled_from(DTYPES))))
    return made


def naive_masks(matrices: list[torch.Tensor], k: int) -> list[np.ndarray]:
    """The k smallest magnitudes by a stable sort, which keeps equals in their order."""
    magnitudes = torch.cat([matrix.double().abs().flatten() for matrix in matrices]).numpy()
    flat = np.zeros(len(magnitudes), dtype=bool)
    flat[np.argsort(magnitudes, kind="stable")[:k]] = True
    ends = np.cumsum([matrix.numel() for matrix in matrices])
    return [part.reshape(matrix.shape) for part, matrix in zip(np.split(flat, ends[:-1]), matrices, strict=True)]


def save(matrices: list[torch.Tensor], folder: str) -> tuple[Checkpoint, list[str]]:
    names = [f"matrix{number}" for number in range(len(matrices))]
    save_file(dict(zip(names, matrices, strict=True)), Path(folder) / "model.safetensors")
    return Checkpoint(Path(folder)), names


@settings(max_examples=300, deadline=None)
@given(tensors(), st.floats(0, 1), st.sampled_from([1, 7, 1 << 18]))
def test_masks_equal_a_stable_sort(matrices: list[torch.Tensor], share: float, chunk: int) -> None:
    k = round(share * sum(matrix.numel() for matrix in matrices))
    usual = checkpoint_module.CHUNK
    with TemporaryDirectory() as folder:
        checkpoint, names = save(matrices, folder)
        checkpoint_module.CHUNK = chunk  # ties and buckets have to carry over from chunk to chunk
        try:
            masks = dict(magnitude_masks(checkpoint, names, select(checkpoint, names, k)))
        finally:
            checkpoint_module.CHUNK = usual
    digest = MaskDigest()
    for name, expected in zip(names, naive_masks(matrices, k), strict=True):
        np.testing.assert_array_equal(masks[name], expected)
        digest.add(masks[name])
    assert digest.pruned == k


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_refuses_what_is_not_finite(value: float, dtype: torch.dtype, tmp_path: Path) -> None:
    matrix = torch.ones(4, 4)
    matrix[2, 3] = value
    checkpoint, names = save([matrix.to(dtype)], str(tmp_path))
    with pytest.raises(UserError, match="matrix0 holds NaN or infinite"):
        select(checkpoint, names, 3)


def test_nested_as_k_grows(tmp_path: Path) -> None:
    checkpoint, names = save([torch.randn(40, 50), torch.randn(30, 20)], str(tmp_path))
    before = np.zeros(2600, dtype=bool)
    for k in range(0, 2601, 100):
        masks = [mask.ravel() for _, mask in magnitude_masks(checkpoint, names, select(checkpoint, names, k))]
        now = np.concatenate(masks)
        assert now.sum() == k
        assert (now >= before).all()
        before = now


def test_equals_torch_pruning_where_there_are_no_ties(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    distinct = (torch.randperm(4400, generator=generator) + 1) * (torch.randint(0, 2, (4400,)) * 2 - 1) / 4400
    layers = [torch.nn.Linear(50, 40, bias=False), torch.nn.Linear(40, 60, bias=False)]
    torch.nn.utils.vector_to_parameters(distinct, [layer.weight for layer in layers])
    checkpoint, names = save([layer.weight.detach().clone() for layer in layers], str(tmp_path))
    masks = dict(magnitude_masks(checkpoint, names, select(checkpoint, names, 1234)))
    torch.nn.utils.prune.global_unstructured(
        [(layer, "weight") for layer in layers], torch.nn.utils.prune.L1Unstructured, amount=1234
    )
    for name, layer in zip(names, layers, strict=True):
        np.testing.assert_array_equal(masks[name], layer.weight_mask.numpy() == 0)


def test_k_out_of_range(tmp_path: Path) -> None:
    checkpoint, names = save([torch.ones(2, 2)], str(tmp_path))
    assert select(checkpoint, names, 0) == Threshold(0, 0)
    for k in (-1, 5):
        with pytest.raises(ValueError, match="of 4 weights"):
            select(checkpoint, names, k)
