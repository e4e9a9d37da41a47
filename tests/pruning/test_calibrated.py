"""Methods that prune on text against the formulas of their papers, written apart, on models of both families."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import CPU, load, prose
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from stages.lib.inference.calibration import calibration_windows
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.calibrated import calibrated_masks
from stages.lib.pruning.importance import LEAST_GROWTH, OUTLIER, block_sensitivities, outlier_shares
from stages.lib.pruning.method import OnText
from stages.lib.pruning.methods import method_named
from stages.lib.pruning.sparsegpt import input_products, sparsegpt_mask
from stages.lib.recipes.choosing import spread
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.families import family_of

Matrix = npt.NDArray[np.float64]


def on_text(method: str) -> OnText:
    found = method_named(method).on_text
    assert found is not None
    return found


def windows(loaded: Loaded, tokens: int = 300) -> list[torch.Tensor]:
    return calibration_windows(loaded, [prose(200, seed) for seed in range(3)], tokens, "prune.calibration_tokens")


def naive_wanda(weight: Matrix, read: Matrix, counts: list[int]) -> tuple[Matrix, Matrix]:
    """Each row sorted by itself; weight (outputs, inputs), read (tokens, inputs)."""
    scores = np.abs(weight) * np.sqrt((read**2).sum(axis=0))
    mask = np.zeros(scores.shape, dtype=bool)
    for row, count in enumerate(counts):
        mask[row, sorted(range(scores.shape[1]), key=lambda column: scores[row, column])[:count]] = True
    return mask, np.where(mask, 0, weight)


def naive_sparsegpt(weight: Matrix, read: Matrix, counts: list[int], at_once: int = 128) -> tuple[Matrix, Matrix]:
    """The inverse of what is left of H is computed anew for each column: Optimal Brain Surgeon as it stands."""
    products = read.T @ read
    damped = products + 0.01 * np.mean(np.diag(products)) * np.eye(len(products))
    inverses = [np.linalg.inv(damped[column:, column:]) for column in range(len(damped))]
    weight, mask = weight.copy(), np.zeros(weight.shape, dtype=bool)
    for start, count in zip(range(0, weight.shape[1], at_once), counts, strict=True):
        columns = range(start, min(start + at_once, weight.shape[1]))
        scores = {
            (row, column): weight[row, column] ** 2 / inverses[column][0, 0]
            for row in range(len(weight))
            for column in columns
        }
        for place in sorted(scores, key=lambda place: scores[place])[:count]:
            mask[place] = True
        for column in columns:
            for row in np.flatnonzero(mask[:, column]):
                inverse = inverses[column]
                weight[row, column:] -= weight[row, column] / inverse[0, 0] * inverse[0]
                weight[row, column] = 0
    return mask, weight


def keep(inputs: list[torch.Tensor]) -> Callable[..., None]:
    return lambda module, given, output: inputs.append(given[0])


def inputs_of(model: torch.nn.Module, names: list[str], texts: list[torch.Tensor]) -> dict[str, Matrix]:
    """All that some layers read, kept whole, in a run of the whole model."""
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in names}
    hooks = [
        model.get_submodule(name.removesuffix(".weight")).register_forward_hook(keep(kept[name])) for name in names
    ]
    for text in texts:
        model(text)
    for hook in hooks:
        hook.remove()
    return {
        name: np.concatenate([part[0].numpy() for part in parts]).astype(np.float64) for name, parts in kept.items()
    }


@torch.no_grad()
def naive(
    method: str, folder: Path, texts: list[torch.Tensor], block_counts: list[int]
) -> dict[str, tuple[Matrix, Matrix]]:
    """Each tensor's mask and what becomes of it: block by block, the model as it is by then."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    names = Checkpoint(folder).prunable
    found = {}
    for block, k in enumerate(block_counts):
        inside = [name for name in names if f".{block}." in name]
        read = inputs_of(model, inside, texts)
        sizes = [model.get_parameter(name).numel() for name in inside]
        for name, count in zip(inside, spread(k, sizes), strict=True):
            parameter = model.get_parameter(name)
            transposed = isinstance(model.get_submodule(name.removesuffix(".weight")), Conv1D)
            weight = (parameter.T if transposed else parameter).double().numpy()
            rows, columns = weight.shape
            if method == "wanda":
                mask, after = naive_wanda(weight, read[name], spread(int(count), [columns] * rows).tolist())
            else:
                mask, after = naive_sparsegpt(weight, read[name], [int(count)])
            found[name] = (mask.T, after.T) if transposed else (mask, after)
        for name in inside:
            model.get_parameter(name).copy_(torch.from_numpy(found[name][1]))
    return found


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_a_model_is_pruned_by_the_formula(tiny_folder: Path, original: Path, method: str) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded)
    assert [text.shape for text in texts] == [(1, 128), (1, 128), (1, 44)]
    size = sum(loaded.model.get_parameter(name).numel() for name in Checkpoint(tiny_folder).prunable) // 2
    counts = [size // 3, size // 4]
    expected = naive(method, tiny_folder, texts, counts)
    scope = {"wanda": "row", "sparsegpt": "layer"}[method]
    found = dict(calibrated_masks(loaded, texts, counts, on_text(method), scope))
    assert list(found) == Checkpoint(tiny_folder).prunable
    assert sum(int(mask.sum()) for mask in found.values()) == sum(counts)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, expected[name][0])
        weight = loaded.model.get_parameter(name).detach().numpy()
        assert not weight[mask].any()
        np.testing.assert_allclose(weight, expected[name][1], atol=2e-4, rtol=0)  # float32 against float64


def test_sparsegpt_in_several_groups_of_columns() -> None:
    """200 inputs are pruned in 128 and 72 columns, the first making up in the second."""
    generator = np.random.default_rng(0)
    read = generator.normal(size=(600, 200)) @ generator.normal(size=(200, 200)) / 14
    weight = generator.normal(size=(6, 200))
    k = 500
    mask, after = naive_sparsegpt(weight, read, spread(k, [6 * 128, 6 * 72]).tolist())
    pruned = torch.from_numpy(weight).float()
    before = np.linalg.norm(read @ weight.T - read @ np.where(mask, 0, weight).T)
    found = sparsegpt_mask(pruned, input_products(torch.from_numpy(read)), "layer", k)
    np.testing.assert_array_equal(found, mask)
    np.testing.assert_allclose(pruned.numpy(), after, atol=2e-4, rtol=0)
    assert np.linalg.norm(read @ weight.T - read @ pruned.double().numpy().T) < 0.9 * before


def test_sparsegpt_on_an_input_that_is_never_there() -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    read = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    read[:, 3] = 0
    mask = sparsegpt_mask(weight, input_products(read), "layer", 10)
    assert mask.sum() == 10
    assert torch.isfinite(weight).all()


@pytest.mark.parametrize("share", [0, 0.3, 0.999, 1])
@pytest.mark.parametrize(("method", "scope"), [("wanda", "row"), ("wanda", "layer"), ("sparsegpt", "layer")])
def test_exactly_k(tiny_folder: Path, original: Path, method: str, scope: str, share: float) -> None:
    loaded, family = load(tiny_folder, original, CPU), family_of(tiny_folder)
    total = sum(loaded.model.get_parameter(name).numel() for name in Checkpoint(tiny_folder).prunable)
    counts = spread(round(share * total), [total // 2] * 2)
    masks = dict(calibrated_masks(loaded, windows(loaded, 40), counts, on_text(method), scope))
    assert sum(int(mask.sum()) for mask in masks.values()) == round(share * total)
    for mask in masks.values():
        assert abs(mask.sum() - share * mask.size) < 2
        if scope == "row":
            assert np.abs(mask.sum(axis=family.input_axis) - share * mask.shape[family.input_axis]).max() <= 1


@torch.no_grad()
def test_outliers_are_those_of_the_formula(tiny_folder: Path, original: Path) -> None:
    loaded, family = load(tiny_folder, original, CPU), family_of(tiny_folder)
    texts = windows(loaded)
    with torch.no_grad():
        loaded.model.get_parameter(Checkpoint(tiny_folder).prunable[0])[0, 0] = 9.0  # both families' first matrix
    shares = []
    for block in range(2):
        inside = [name for name in Checkpoint(tiny_folder).prunable if f".{block}." in name]
        read = inputs_of(loaded.model, inside, texts)
        scores = []
        for name in inside:
            weight = loaded.model.get_parameter(name).double().numpy()
            by_output = weight.T if family.input_axis == 0 else weight
            scores.append((np.abs(by_output) * np.linalg.norm(read[name], axis=0)).ravel())
        merged = np.concatenate(scores)
        shares.append(np.mean(merged > OUTLIER * merged.mean()))
    assert max(shares) > 0
    np.testing.assert_allclose(outlier_shares(loaded, texts), shares, atol=1e-12)


def test_sensitivities_are_the_growth_of_the_loss(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded, 150)

    def loss(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return sum(float(model(text, labels=text).loss) * (text.shape[1] - 1) for text in texts)

    dense = loss(loaded.model)
    expected = []
    for block in range(2):
        model = load(tiny_folder, original, CPU).model
        weights = [model.get_parameter(name) for name in Checkpoint(tiny_folder).prunable if f".{block}." in name]
        magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
        bound = magnitudes.sort().values[round(0.5 * len(magnitudes)) - 1]
        with torch.no_grad():
            for weight in weights:
                weight[weight.abs() <= bound] = 0
        expected.append((loss(model) - dense) / sum(text.shape[1] - 1 for text in texts))
    assert max(expected) > LEAST_GROWTH
    found = block_sensitivities(loaded, texts, 0.5)
    np.testing.assert_allclose(np.exp(found), np.maximum(expected, LEAST_GROWTH), rtol=1e-3)
    assert loss(loaded.model) == dense  # the model is left as it was
