"""Methods that prune on text against the formulas of their papers, written apart, on models of both families."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, Finished, changed_params, framing, load, prose, write_params
from naive_pruning import Matrix, naive_sparsegpt, naive_wanda
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from stages.lib.files.errors import UserError
from stages.lib.files.rows import unscored_documents
from stages.lib.inference.calibration import calibration_windows
from stages.lib.inference.device import Device
from stages.lib.inference.loading import Loaded
from stages.lib.pruning.calibrated import calibrated_masks
from stages.lib.pruning.importance import LEAST_GROWTH, OUTLIER, block_sensitivities, outlier_shares
from stages.lib.pruning.method import OnText
from stages.lib.pruning.methods import method_named
from stages.lib.pruning.sparsegpt import input_products, sparsegpt_mask
from stages.lib.recipes.choosing import Counts, MatrixCounts, shared_by_matrices, spread
from stages.lib.recipes.recipe import materialize
from stages.lib.weights.checkpoint import Checkpoint


def on_text(method: str) -> OnText:
    found = method_named(method).on_text
    assert found is not None
    return found


def windows(loaded: Loaded, tokens: int = 300) -> list[torch.Tensor]:
    return calibration_windows(loaded, [prose(200, seed) for seed in range(3)], tokens, "prune.calibration_tokens")


def shared(loaded: Loaded, block_counts: Sequence[int] | Counts) -> MatrixCounts:
    return shared_by_matrices([int(k) for k in block_counts], loaded.structure.matrices)


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
    names = Checkpoint(folder).structure.prunable
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
    size = sum(loaded.model.get_parameter(name).numel() for name in Checkpoint(tiny_folder).structure.prunable) // 2
    counts = [size // 3, size // 4]
    expected = naive(method, tiny_folder, texts, counts)
    scope = {"wanda": "row", "sparsegpt": "layer"}[method]
    found = dict(calibrated_masks(loaded, texts, shared(loaded, counts), on_text(method), scope))
    assert list(found) == Checkpoint(tiny_folder).structure.prunable
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


def reference_sparsegpt(weight: torch.Tensor, read: torch.Tensor, sparsity: float) -> torch.Tensor:
    """Algorithm 1 as the authors' code has it, in one group of columns: what is pruned is zero afterwards."""
    weight, products = weight.clone().double(), (read.T @ read).double()
    dead = products.diagonal() == 0
    products[dead, dead] = 1
    weight[:, dead] = 0
    products += 0.01 * products.diagonal().mean() * torch.eye(len(products))
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(products)), upper=True)
    scores = weight**2 / factor.diagonal() ** 2
    threshold = scores.flatten().sort().values[int(scores.numel() * sparsity)]
    mask = scores <= threshold
    for column in range(weight.shape[1]):
        kept = weight[:, column].masked_fill(mask[:, column], 0)
        error = (weight[:, column] - kept) / factor[column, column]
        weight[:, column:] -= error[:, None] * factor[column, column:]
        weight[:, column] = kept
    return weight


def test_weights_of_an_input_that_is_never_there_go_first() -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    read = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    read[:, 3], weight[:, 3] = 0, 5  # large weights, which the score without the input would keep
    expected = reference_sparsegpt(weight, read, 3.5 / 32)  # the threshold itself is pruned, too
    pruned = weight.clone()
    mask = sparsegpt_mask(pruned, input_products(read), "layer", 4)
    assert mask.sum() == 4
    assert mask[:, 3].all()
    torch.testing.assert_close(pruned, expected.float())


@pytest.mark.parametrize("k", [2, 4, 10])
def test_exactly_k_with_an_input_that_is_never_there(k: int) -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    read = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    read[:, 3] = 0
    before = weight.clone()
    mask = sparsegpt_mask(weight, input_products(read), "layer", k)
    assert mask.sum() == (weight == 0).sum() == k
    assert mask[:, 3].sum() == min(k, 4)
    kept = ~torch.from_numpy(mask[:, 3])
    assert torch.equal(weight[kept, 3], before[kept, 3])  # it makes up for nothing, and nothing for it
    if k == 10:
        torch.testing.assert_close(weight, reference_sparsegpt(before, read, 9.5 / 32).float(), rtol=1e-4, atol=1e-5)


def test_what_is_loaded_is_what_sparsegpt_gave_on_a_base_with_zeros(
    project: Path, run_stage: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros of the base that are not pruned get a share of the compensation, and keep it."""
    monkeypatch.setattr("stages.lib.pruning.sparsegpt.COLUMNS_AT_ONCE", 8)  # some have more zeros than are pruned
    path = project / "mine/model/model.safetensors"
    weights = load_file(path)
    generator = torch.Generator().manual_seed(0)
    for weight in weights.values():
        weight[torch.rand(weight.shape, generator=generator) < (0.45 if weight.ndim > 1 else 0)] = 0
    save_file(weights, path, metadata={"format": "pt"})
    write_params(project, changed_params({"prune.method": "sparsegpt", "prune.sparsity": 0.5}))
    for stage in (("download", "model"), ("download", "text"), ("prune",)):
        finished = run_stage(*stage)
        assert finished.status == 0, finished.err
    base = Path("data/model")
    loaded = load(base, ROOT / "data/original", CPU)
    documents = unscored_documents(Path("data/text"))
    sizes = [sum(Checkpoint(base).size(name) for name in loaded.structure.weights([block])) for block in (0, 1)]
    texts = calibration_windows(loaded, documents, 64, "")
    masks = dict(
        calibrated_masks(loaded, texts, shared(loaded, spread(sum(sizes) // 2, sizes)), on_text("sparsegpt"), "layer")
    )
    found = materialize(Checkpoint(base), Path("data/pruned")).weights
    revived = 0
    for name, mask in masks.items():
        given = loaded.model.get_parameter(name).detach()
        step = (given - weights[name]).masked_fill(torch.from_numpy(mask), 0).abs().amax(dim=1, keepdim=True) / 127
        assert ((found[name] - given).abs() <= step * 0.501 + 1e-6).all(), name
        revived += int(((weights[name] == 0) & (given != 0)).sum())
    assert revived > 10


@pytest.mark.parametrize("method", ["wanda", "sparsegpt"])
def test_inputs_that_are_not_finite_are_one_line(tiny_folder: Path, original: Path, method: str) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[texts[0][0, 9]] = torch.inf
    first = Checkpoint(tiny_folder).structure.prunable[0]
    says = rf"the sums over the inputs of {first} are not finite in float32; repair the model"
    with pytest.raises(UserError, match=says):
        dict(calibrated_masks(loaded, texts, shared(loaded, [10, 10]), on_text(method), "layer"))


@pytest.mark.parametrize("budget", [outlier_shares, partial(block_sensitivities, sparsity=0.5)])
def test_budgets_of_a_model_that_overflows_are_one_line(
    tiny_folder: Path, original: Path, budget: Callable[..., list[float]]
) -> None:
    loaded = load(tiny_folder, original, Device(torch.device("cpu"), torch.float16))
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.mul_(300)
    with pytest.raises(UserError, match=r"not finite in float16; set compute\.dtype to float32 in params\.yaml"):
        budget(loaded, windows(loaded))


def test_products_that_cannot_be_inverted_are_one_line() -> None:
    products = -torch.eye(8)  # as rounding leaves them, at worst
    with pytest.raises(UserError, match=r"sparsegpt cannot invert .*; raise prune\.calibration_tokens, or set"):
        sparsegpt_mask(torch.ones(4, 8), products, "layer", 4)


@pytest.mark.parametrize("share", [0, 0.3, 0.999, 1])
@pytest.mark.parametrize(("method", "scope"), [("wanda", "row"), ("wanda", "layer"), ("sparsegpt", "layer")])
def test_exactly_k(tiny_folder: Path, original: Path, method: str, scope: str, share: float) -> None:
    loaded = load(tiny_folder, original, CPU)
    input_axis = loaded.structure.matrices[0][0].input_axis
    total = sum(loaded.model.get_parameter(name).numel() for name in Checkpoint(tiny_folder).structure.prunable)
    counts = spread(round(share * total), [total // 2] * 2)
    masks = dict(calibrated_masks(loaded, windows(loaded, 40), shared(loaded, counts), on_text(method), scope))
    assert sum(int(mask.sum()) for mask in masks.values()) == round(share * total)
    for mask in masks.values():
        assert abs(mask.sum() - share * mask.size) < 2
        if scope == "row":
            assert np.abs(mask.sum(axis=input_axis) - share * mask.shape[input_axis]).max() <= 1


@torch.no_grad()
def test_outliers_are_those_of_the_formula(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    input_axis = loaded.structure.matrices[0][0].input_axis
    texts = windows(loaded)
    with torch.no_grad():
        loaded.model.get_parameter(Checkpoint(tiny_folder).structure.prunable[0])[0, 0] = (
            9.0  # both families' first matrix
        )
    shares = []
    for block in range(2):
        inside = [name for name in Checkpoint(tiny_folder).structure.prunable if f".{block}." in name]
        read = inputs_of(loaded.model, inside, texts)
        scores = []
        for name in inside:
            weight = loaded.model.get_parameter(name).double().numpy()
            by_output = weight.T if input_axis == 0 else weight
            scores.append((np.abs(by_output) * np.linalg.norm(read[name], axis=0)).ravel())
        merged = np.concatenate(scores)
        shares.append(np.mean(merged > OUTLIER * merged.mean()))
    assert max(shares) > 0
    np.testing.assert_allclose(outlier_shares(loaded, texts), shares, atol=1e-12)


@pytest.mark.parametrize("before", [[], ["<s>"], ["[gMASK]", "<sop>"]])
def test_sensitivities_are_the_growth_of_the_loss(tiny_folder: Path, original: Path, before: list[str]) -> None:
    loaded = load(tiny_folder, original, CPU)
    loaded = replace(loaded, tokenizer=framing(loaded.tokenizer, before))
    texts = windows(loaded, 150)
    scored = [text.shape[1] - max(1, len(before)) for text in texts]

    def loss(model: torch.nn.Module) -> float:
        total = 0.0
        for text, count in zip(texts, scored, strict=True):
            labels = text.clone()
            labels[:, : len(before)] = -100
            with torch.no_grad():
                total += float(model(text, labels=labels).loss) * count
        return total

    dense = loss(loaded.model)
    expected = []
    for block in range(2):
        model = load(tiny_folder, original, CPU).model
        weights = [
            model.get_parameter(name) for name in Checkpoint(tiny_folder).structure.prunable if f".{block}." in name
        ]
        magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
        bound = magnitudes.sort().values[round(0.5 * len(magnitudes)) - 1]
        with torch.no_grad():
            for weight in weights:
                weight[weight.abs() <= bound] = 0
        expected.append((loss(model) - dense) / sum(scored))
    assert max(expected) > LEAST_GROWTH
    found = block_sensitivities(loaded, texts, 0.5)
    np.testing.assert_allclose(np.exp(found), np.maximum(expected, LEAST_GROWTH), rtol=1e-3)
    assert loss(loaded.model) == dense  # the model is left as it was
