"""The stage prune with every method, scope and budget: exact counts, and recipes that come back as written."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from conftest import CPU, Finished, changed_params, load, make_project, write_params
from naive_pruning import damped, row_by_row

from stages.lib.files.rows import unscored_documents
from stages.lib.inference.calibration import calibration_windows
from stages.lib.plumbing.params import load_params
from stages.lib.pruning.least_squares import fitted
from stages.lib.recipes.changed import Changed
from stages.lib.recipes.masks import Pruned
from stages.lib.recipes.recipe import materialize, read_recipe, size_of
from stages.lib.reporting.integrity import check_pruned
from stages.lib.weights.checkpoint import Checkpoint

RunStage = Callable[..., Finished]

SETTINGS: list[dict[str, Any]] = [
    {"method": "magnitude"},
    {"method": "magnitude", "scope": "layer"},
    {"method": "magnitude", "scope": "row"},
    {"method": "magnitude", "scope": "2:4", "sparsity": 0.5},
    {"method": "magnitude", "scope": "layer", "budget": "owl"},
    {"method": "magnitude", "scope": "row", "budget": "sensitivity"},
    {"method": "wanda"},
    {"method": "wanda", "scope": "layer"},
    {"method": "wanda", "scope": "4:8", "sparsity": 0.5},
    {"method": "wanda", "scope": "1:4", "sparsity": 0.75},
    {"method": "wanda", "budget": "owl"},
    {"method": "sparsegpt"},
    {"method": "sparsegpt", "budget": "sensitivity"},
    {"method": "random"},
    {"method": "random", "scope": "row", "budget": "owl"},
    {"method": "kfac"},
    {"method": "kfac", "shots": 2},
    {"method": "kfac", "scope": "layer", "budget": "curvature"},
    {"method": "kfac", "scope": "row", "budget": "owl"},
    {"method": "kfac", "scope": "2:4", "sparsity": 0.5},
    {"method": "surgeon"},
    {"method": "surgeon", "shots": 2, "update": "outputs"},
    {"method": "wanda", "budget": "curvature"},
    {"method": "sparsegpt", "budget": "curvature"},
    {"method": "magnitude", "update": "outputs"},
    {"method": "magnitude", "scope": "2:4", "sparsity": 0.5, "update": "outputs"},
    {"method": "random", "update": "outputs"},
    {"method": "wanda", "update": "outputs"},
    {"method": "kfac", "update": "outputs"},
]
CHANGING = ("sparsegpt", "surgeon")
"""The methods that update the remaining weights themselves."""


def name_of(settings: dict[str, Any]) -> str:
    return "-".join(str(value) for value in settings.values())


def prune(run_stage: RunStage, folder: Path, settings: dict[str, Any]) -> dict[str, int]:
    """The size of the model that the stage makes with these settings."""
    write_params(folder, changed_params({f"prune.{key}": value for key, value in settings.items()}))
    finished = run_stage("prune")
    assert finished.status == 0, finished.err
    pruned = Path("data/pruned")
    return size_of(materialize(Checkpoint(Path("data/model")), pruned), pruned)


@pytest.fixture(params=["llama", "gpt2"])
def downloaded(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    tiny_folders: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    run_stage: RunStage,
) -> Path:
    make_project(tmp_path, tiny_folders[request.param])
    monkeypatch.chdir(tmp_path)
    for item in ("model", "text"):
        assert run_stage("download", item).status == 0
    return tmp_path


def masks_in(folder: Path) -> dict[str, np.ndarray]:
    recipe = read_recipe(folder).unchanged
    assert isinstance(recipe, Pruned)
    return dict(recipe.checked_masks(Checkpoint(Path("data/model")), folder))


@pytest.mark.parametrize("settings", SETTINGS, ids=name_of)
def test_exactly_k_and_the_same_each_time(downloaded: Path, run_stage: RunStage, settings: dict[str, Any]) -> None:
    measured = prune(run_stage, downloaded, settings)
    first = {path.name: path.read_bytes() for path in Path("data/pruned").iterdir()}
    assert measured == prune(run_stage, downloaded, settings)
    assert first == {path.name: path.read_bytes() for path in Path("data/pruned").iterdir()}
    model, pruned = Path("data/model"), Path("data/pruned")
    k = round(
        settings.get("sparsity", 0.3)
        * sum(Checkpoint(model).size(name) for name in Checkpoint(model).structure.prunable)
    )
    assert measured["pruned_weights"] == k
    masks = masks_in(pruned)
    assert sum(int(mask.sum()) for mask in masks.values()) == k
    weights = dict(load(model, pruned, CPU).model.named_parameters())
    assert measured["effective_parameters"] == sum(int(weight.count_nonzero()) for weight in weights.values())
    dense = dict(load(model, Path("data/original"), CPU).model.named_parameters())
    changed = isinstance(read_recipe(pruned), Changed)
    assert changed == (settings["method"] in CHANGING or "update" in settings)
    for name, weight in weights.items():
        mask = torch.from_numpy(masks[name].copy()) if name in masks else torch.zeros(weight.shape, dtype=torch.bool)
        assert not weight[mask].any()
        assert torch.equal(weight[~mask], dense[name][~mask]) != (changed and name in masks)


def test_a_pattern_leaves_n_of_each_m(downloaded: Path, run_stage: RunStage) -> None:
    prune(run_stage, downloaded, {"method": "wanda", "scope": "3:8", "sparsity": 0.625})
    axis = Checkpoint(Path("data/model")).structure.matrices[0][0].input_axis
    for mask in masks_in(Path("data/pruned")).values():
        groups = np.moveaxis(mask, axis, 1).reshape(-1, 8)
        assert (groups.sum(axis=1) == 5).all()


def test_magnitude_in_each_layer_is_that_of_torch(downloaded: Path, run_stage: RunStage) -> None:
    prune(run_stage, downloaded, {"method": "magnitude", "scope": "layer"})
    masks = masks_in(Path("data/pruned"))
    model = load(Path("data/model"), Path("data/original"), CPU).model
    for name, mask in masks.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=int(mask.sum()))
        np.testing.assert_array_equal(mask, layer.weight_mask.numpy() == 0)
        assert abs(mask.sum() - 0.3 * mask.size) < 2


def test_budgets_spare_what_matters(downloaded: Path, run_stage: RunStage) -> None:
    by_budget = {}
    for budget in ("uniform", "owl", "sensitivity"):
        prune(run_stage, downloaded, {"method": "magnitude", "scope": "layer", "budget": budget})
        masks = masks_in(Path("data/pruned"))
        by_budget[budget] = [sum(int(m.sum()) for n, m in masks.items() if f".{block}." in n) for block in range(2)]
    assert abs(np.subtract(*by_budget["uniform"])) <= 1
    size = sum(mask.size for mask in masks.values()) / 2
    for budget in ("owl", "sensitivity"):
        assert sum(by_budget[budget]) == sum(by_budget["uniform"])
        assert abs(np.subtract(*by_budget[budget])) == pytest.approx(0.16 * size, abs=2)  # two blocks: both ends


@pytest.mark.parametrize(
    "by_curvature", [{"method": "wanda"}, {"method": "wanda", "scope": "layer"}, {"method": "sparsegpt"}]
)
def test_budgets_by_curvature_are_the_counts_of_kfac(
    downloaded: Path, run_stage: RunStage, by_curvature: dict[str, Any]
) -> None:
    prune(run_stage, downloaded, {"method": "kfac"})
    expected = {name: int(mask.sum()) for name, mask in masks_in(Path("data/pruned")).items()}
    prune(run_stage, downloaded, {**by_curvature, "budget": "curvature"})
    found = masks_in(Path("data/pruned"))
    assert {name: int(mask.sum()) for name, mask in found.items()} == expected
    assert len({expected[name] / mask.size for name, mask in found.items()}) > 2  # no two matrices alike
    if by_curvature == {"method": "wanda"}:
        axis = Checkpoint(Path("data/model")).structure.matrices[0][0].input_axis
        assert all(np.ptp(mask.sum(axis=axis)) <= 1 for mask in found.values())


@pytest.mark.parametrize("settings", [{"method": "magnitude"}, {"method": "wanda"}, {"method": "random"}], ids=name_of)
def test_an_update_keeps_the_mask_and_brings_outputs_closer(
    downloaded: Path, run_stage: RunStage, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first matrix, each output solved by itself, but for the int8 steps that changes are stored in."""
    monkeypatch.setattr("stages.lib.pruning.calibrated.fitted", partial(fitted, steps=2000))
    model, pruned = Path("data/model"), Path("data/pruned")
    prune(run_stage, downloaded, settings)
    masks, without = masks_in(pruned), load(model, pruned, CPU)
    prune(run_stage, downloaded, {**settings, "update": "outputs"})
    recipe = read_recipe(pruned)
    assert isinstance(recipe, Changed)
    assert recipe.by == "outputs"
    for name, mask in masks_in(pruned).items():
        np.testing.assert_array_equal(mask, masks[name])
    dense, updated = load(model, Path("data/original"), CPU), load(model, pruned, CPU)
    (text,) = calibration_windows(dense, unscored_documents(Path("data/text")), 64, "")
    first = dense.structure.matrices[0][0]
    read: list[torch.Tensor] = []
    layer = dense.model.get_submodule(first.layer)
    with torch.no_grad(), layer.register_forward_pre_hook(lambda _layer, given: read.append(given[0][0].double())):
        dense.model(text)
    before, zeroed, after = (each.weights[first.name] for each in (dense, without, updated))
    mask = torch.from_numpy(masks[first.name].copy())
    weight, gone = (first.by_output(each)[0].numpy() for each in (before.double(), mask))
    exact = torch.empty(first.shape, dtype=torch.float64)
    first.by_output(exact)[0].copy_(torch.from_numpy(row_by_row(weight, gone, damped(read[0].T @ read[0]))))
    assert not after[mask].any()
    step = (exact - before).masked_fill(mask, 0).abs().amax(dim=1, keepdim=True) / 127
    assert ((after - exact).abs() <= 0.51 * step + 2e-3).all()
    errors = [first.by_output(each - before)[0].double() for each in (zeroed, after)]
    zeroed_error, updated_error = (float((read[0] @ error.T).square().sum()) for error in errors)
    assert updated_error < 0.8 * zeroed_error


def test_the_seed_decides_at_random(downloaded: Path, run_stage: RunStage) -> None:
    prune(run_stage, downloaded, {"method": "random"})
    first = masks_in(Path("data/pruned"))
    params = changed_params({"prune.method": "random", "seed": 1})
    write_params(downloaded, params)
    assert run_stage("prune").status == 0
    second = masks_in(Path("data/pruned"))
    for name, mask in first.items():
        both = np.mean(mask & second[name])
        assert both == pytest.approx(0.09, abs=0.03)  # independent draws of 30 %
        assert not np.array_equal(mask, first[next(iter(first))]) or name == next(iter(first))


@pytest.mark.parametrize("method", ["wanda", "sparsegpt", "kfac", "surgeon", "random"])
def test_verify_checks_the_number_of_pruned_weights(downloaded: Path, run_stage: RunStage, method: str) -> None:
    prune(run_stage, downloaded, {"method": method})
    settings = load_params().prune
    assert not list(check_pruned(Path("data/pruned"), settings))
    (finding,) = check_pruned(Path("data/pruned"), settings.model_copy(update={"sparsity": 0.4}))
    assert finding.message.startswith("data/pruned does not prune the ")
