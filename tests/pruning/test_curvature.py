"""Pruning by curvature, and the update for a mask, against plain autograd and dense linear algebra, written apart."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, framing, load, prose
from naive_pruning import Matrix, damped, row_by_row, tokens_kept
from torch.nn import functional
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from stages.lib.files.errors import UserError
from stages.lib.inference.calibration import calibration_windows
from stages.lib.inference.device import Device
from stages.lib.inference.gradients import gradients_seen, pass_back
from stages.lib.inference.layer_inputs import inputs_seen
from stages.lib.inference.loading import Loaded
from stages.lib.pruning import gradual
from stages.lib.pruning.calibrated import fit_outputs
from stages.lib.pruning.curvature import Curvature, curvatures
from stages.lib.pruning.gradual import masks_over_all, masks_within, prune_over_all
from stages.lib.pruning.importance import curvature_counts
from stages.lib.pruning.kfac import kfac_scores
from stages.lib.pruning.least_squares import STEPS, fitted
from stages.lib.pruning.method import OnGradients
from stages.lib.pruning.methods import method_named
from stages.lib.pruning.sparsegpt import input_products
from stages.lib.pruning.surgeon import surgeon_scores
from stages.lib.pruning.wanda import input_squares
from stages.lib.recipes.choosing import spread
from stages.lib.recipes.masks import Mask
from stages.lib.weights.checkpoint import Checkpoint

MANY = 2000
"""Steps after which conjugate gradients have converged."""


def on_gradients(method: str) -> OnGradients:
    found = method_named(method).on_gradients
    assert found is not None
    return found


def windows(loaded: Loaded, tokens: int = 300) -> list[torch.Tensor]:
    texts = [prose(200, seed) for seed in range(3)]
    return calibration_windows(loaded, texts, tokens, "prune.calibration_tokens")


def by_output(loaded: Loaded, name: str, values: Any) -> Any:
    """Values in a tensor's shape as (outputs, inputs)."""
    return values.T if isinstance(loaded.model.get_submodule(name.removesuffix(".weight")), Conv1D) else values


def naive(
    folder: Path, texts: Sequence[torch.Tensor], special: int
) -> tuple[dict[str, tuple[Matrix, Matrix]], dict[str, Matrix]]:
    """In float64: each matrix's inputs and the gradients at its outputs, token by token, and the weights' gradients.

    The loss is that of plain transformers, summed over the tokens of the text that have one before them.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    names = Checkpoint(folder).structure.prunable
    with tokens_kept(model, names) as (inputs, zeros):
        for text in texts:
            labels = text.clone()
            labels[:, :special] = -100
            scored = int((labels[:, 1:] != -100).sum())
            (model(text, labels=labels).loss * scored).backward()
    tokens = {
        name: (
            torch.cat(inputs[name]).numpy(),
            torch.cat([zero.grad.flatten(end_dim=-2) for zero in zeros[name]]).numpy(),
        )
        for name in names
    }
    return tokens, {name: model.get_parameter(name).grad.numpy() for name in names}


@pytest.mark.parametrize("before", [[], ["<s>"], ["[gMASK]", "<sop>"]])
def test_factors_are_sums_over_tokens(
    tiny_folder: Path, original: Path, before: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.lib.inference.gradients.LOGITS_AT_ONCE", 320 * 50)  # a window's logits in three parts
    loaded = load(tiny_folder, original, CPU)
    loaded = replace(loaded, tokenizer=framing(loaded.tokenizer, before))
    texts = windows(loaded)
    assert [text.shape[1] for text in texts] == [128, 128, 300 - 2 * (128 - len(before)) + len(before)]
    tokens, weight_gradients = naive(tiny_folder, texts, len(before))
    products, squares = (curvatures(loaded, texts, each) for each in (input_products, input_squares))
    assert list(products) == list(squares) == Checkpoint(tiny_folder).structure.prunable
    for name, (read, gradients) in tokens.items():
        full, diagonal = products[name], squares[name]
        for found, sums, each in (
            (full.inputs, diagonal.inputs, read),
            (full.gradients, diagonal.gradients, gradients),
        ):
            expected = sum(np.outer(token, token) for token in each)
            size = np.sqrt(np.outer(np.diag(expected), np.diag(expected))) + 1e-12
            assert (np.abs(found.numpy() - expected) / size).max() < 1e-4, name
            np.testing.assert_allclose(sums.numpy(), (each**2).sum(axis=0), rtol=1e-4, atol=1e-12)
        # The reference itself: a weight's gradient is the sum of its tokens' outer products.
        given = by_output(loaded, name, weight_gradients[name])
        np.testing.assert_allclose(sum(map(np.outer, gradients, read)), given, rtol=1e-9, atol=1e-9)


def test_gradients_and_inputs_give_the_weights_gradient(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded)
    _, expected = naive(tiny_folder, texts, 0)
    for name, gradient in expected.items():
        read: list[torch.Tensor] = []
        seen: list[torch.Tensor] = []
        layer = loaded.model.get_submodule(name.removesuffix(".weight"))
        with (
            inputs_seen(layer, partial(lambda into, *given: into.append(given[-1]), read)),
            gradients_seen(layer, seen.append),
        ):
            pass_back(loaded, texts)
        found = sum(one.T @ other for one, other in zip(seen, read, strict=True))
        given = by_output(loaded, name, gradient)
        np.testing.assert_allclose(found, given, rtol=0, atol=1e-5 * np.abs(given).max())


def test_a_pass_back_leaves_the_model_as_it_was(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    frozen = loaded.model.get_parameter(loaded.structure.prunable[0])
    frozen.requires_grad_(False)
    before = {name: (weight.clone(), weight.requires_grad) for name, weight in loaded.model.named_parameters()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules()]

    def fail(statistic: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("no\nstatistic")

    curvatures(loaded, windows(loaded), input_squares)
    with pytest.raises(
        UserError, match=r"cannot be differentiated in float32 \(no statistic\); in params\.yaml, set p"
    ):
        curvatures(loaded, windows(loaded), fail)
    for name, weight in loaded.model.named_parameters():
        assert weight.grad is None, name
        assert torch.equal(weight, before[name][0])
        assert weight.requires_grad == before[name][1], name
    assert hooks == [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in loaded.model.modules()]


@pytest.mark.parametrize("at_once", [1, 320 * 7, 320 * 128])
def test_logits_in_slices_give_the_same(
    tiny_folder: Path, original: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded, 60)
    whole = curvatures(loaded, texts, input_products)
    monkeypatch.setattr("stages.lib.inference.gradients.LOGITS_AT_ONCE", at_once)
    for name, found in curvatures(loaded, texts, input_products).items():
        torch.testing.assert_close(found.gradients, whole[name].gradients, rtol=1e-3, atol=1e-4)


def test_a_window_without_a_predicted_token_adds_nothing(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded, 129)
    assert texts[-1].shape == (1, 1)
    with_it, without = (curvatures(loaded, each, input_squares) for each in (texts, texts[:1]))
    for name, found in with_it.items():
        assert torch.equal(found.gradients, without[name].gradients)


def sorted_all(scores: dict[str, Any], k: int) -> dict[str, Mask]:
    """The k smallest of all, in a stable sort of the whole."""
    flat = np.concatenate([part.reshape(-1) for part in scores.values()])
    mask = np.zeros(flat.size, dtype=bool)
    mask[np.argsort(flat, kind="stable")[:k]] = True
    parts = np.split(mask, np.cumsum([part.size for part in scores.values()])[:-1])
    return {name: part.reshape(scores[name].shape) for name, part in zip(scores, parts, strict=True)}


def naive_scores(tiny_folder: Path, loaded: Loaded, texts: Sequence[torch.Tensor]) -> dict[str, Matrix]:
    """In float64 and in the tensors' shape: the increase of the loss that the formula gives for each weight."""
    found = {}
    for name, (read, gradients) in naive(tiny_folder, texts, 0)[0].items():
        curvature = np.outer((gradients**2).sum(axis=0), (read**2).sum(axis=0))
        weight = loaded.weights[name].double().numpy()
        found[name] = weight**2 * by_output(loaded, name, curvature)
    return found


@pytest.mark.parametrize("share", [0, 1e-5, 0.3, 0.7, 1])
def test_kfac_over_all_matrices_is_a_full_sort(tiny_folder: Path, original: Path, share: float) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded)
    scores = naive_scores(tiny_folder, loaded, texts)
    k = -int(-share * sum(part.size for part in scores.values()))
    k = max(k, int(share > 0))
    dense = {name: weight.clone() for name, weight in loaded.weights.items()}
    masks = prune_over_all(loaded, texts, on_gradients("kfac"), k, 1)
    assert list(masks) == Checkpoint(tiny_folder).structure.prunable
    assert sum(int(mask.sum()) for mask in masks.values()) == k
    expected = sorted_all(scores, k)
    # In float32 and float64, weights next to the cut may come in another order.
    assert sum(np.count_nonzero(masks[name] != expected[name]) for name in masks) <= 4
    for name, weight in loaded.weights.items():
        mask = torch.from_numpy(masks[name]) if name in masks else torch.zeros_like(weight, dtype=torch.bool)
        assert torch.equal(weight, dense[name].masked_fill(mask, 0))


def test_ties_over_all_matrices_go_to_the_first(tiny_folder: Path, original: Path) -> None:
    """Scores of few values, so that each cut falls among many equal ones."""
    loaded = load(tiny_folder, original, CPU)
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name in loaded.structure.prunable:
        weight = loaded.weights[name]
        weight.copy_(torch.randint(-3, 4, weight.shape, generator=generator))
        outputs, inputs = by_output(loaded, name, weight).shape
        found[name] = Curvature(torch.ones(inputs).double(), torch.ones(outputs).double())
    scores = {name: loaded.weights[name].abs().numpy() for name in found}
    size = sum(part.size for part in scores.values())
    for k in (0, 1, size // 10, size // 3, size // 2, size - 1, size):
        masks = masks_over_all(loaded, on_gradients("kfac"), found, k)
        expected = sorted_all(scores, k)
        for name, mask in masks.items():
            np.testing.assert_array_equal(mask, expected[name])


@pytest.mark.parametrize("scope", ["layer", "row", "2:4"])
def test_kfac_within_matrices_is_a_sort_of_each(tiny_folder: Path, original: Path, scope: str) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded)
    scores = naive_scores(tiny_folder, loaded, texts)
    share = 0.5 if scope == "2:4" else 0.37
    counts = {name: [round(share * part.size)] for name, part in scores.items()}
    masks = masks_within(loaded, texts, on_gradients("kfac"), counts, scope)
    differ = 0
    for name, part in scores.items():
        ours, theirs = by_output(loaded, name, masks[name]), by_output(loaded, name, part)
        width = {"layer": theirs.size, "row": theirs.shape[1], "2:4": 4}[scope]
        groups = theirs.reshape(-1, width)
        expected = np.zeros(groups.shape, dtype=bool)
        for row, count in enumerate(spread(counts[name][0], [width] * len(groups))):
            expected[row, np.argsort(groups[row], kind="stable")[:count]] = True
        assert ours.sum() == counts[name][0]
        differ += np.count_nonzero(ours.reshape(groups.shape) != expected)
    assert differ <= 4  # float32 and float64, at the cut


@pytest.mark.parametrize("method", ["kfac", "surgeon"])
def test_a_second_run_gives_the_same(tiny_folder: Path, original: Path, method: str) -> None:
    runs = []
    for _ in range(2):
        loaded = load(tiny_folder, original, CPU)
        masks = prune_over_all(loaded, windows(loaded), on_gradients(method), 5000, 2)
        runs.append((masks, loaded.weights))
    (first, weights), (second, again) = runs
    for name, mask in first.items():
        np.testing.assert_array_equal(mask, second[name])
        assert torch.equal(weights[name], again[name])


def test_counts_by_curvature_are_those_of_the_mask(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts, k = windows(loaded), 6000
    dense = {name: weight.clone() for name, weight in loaded.weights.items()}
    counts = curvature_counts(loaded, texts, k)
    assert all(torch.equal(weight, dense[name]) for name, weight in loaded.weights.items())
    masks = prune_over_all(loaded, texts, on_gradients("kfac"), k, 1)
    assert counts == {name: [int(mask.sum())] for name, mask in masks.items()}
    assert len({count / masks[name].size for name, (count,) in counts.items()}) == len(counts)


def example(seed: int = 0, outputs: int = 5, inputs: int = 8) -> dict[str, torch.Tensor]:
    """A small matrix, a mask of a third of it, and the products of correlated inputs and gradients."""
    generator = torch.Generator().manual_seed(seed)

    def products(width: int) -> torch.Tensor:
        tokens = torch.randn(40, width, generator=generator) @ torch.randn(width, width, generator=generator)
        return tokens.T @ tokens

    return {
        "weight": torch.randn(outputs, inputs, generator=generator),
        "mask": torch.rand(outputs, inputs, generator=generator) < 1 / 3,
        "inputs": products(inputs),
        "gradients": products(outputs) * 1e-6,
    }


def objective(change: torch.Tensor | Matrix, inputs: torch.Tensor, gradients: torch.Tensor | None = None) -> float:
    """The increase of the loss, or of the outputs' squared error, that a change of a matrix makes, but for a factor."""
    change = np.asarray(change, dtype=np.float64)
    left = np.eye(len(change)) if gradients is None else damped(gradients)
    return float(np.trace(left @ change @ damped(inputs) @ change.T))


def test_the_cost_of_a_weight_is_its_entry_in_the_fisher_matrix() -> None:
    each = example()
    weight = each["weight"].double().numpy()
    fisher = np.kron(each["gradients"].double(), each["inputs"].double())
    expected = (weight.reshape(-1) ** 2 * np.diag(fisher)).reshape(weight.shape)
    found = surgeon_scores(each["weight"], each["inputs"], each["gradients"]).double().numpy() ** 2
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    diagonals = kfac_scores(each["weight"], each["inputs"].diagonal(), each["gradients"].diagonal())
    np.testing.assert_allclose(diagonals.double().numpy() ** 2, expected, rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_update_is_optimal_brain_surgeons(seed: int) -> None:
    """With the dense inverse of the Fisher matrix, all weights of the mask removed together."""
    each = example(seed)
    weight, pruned = each["weight"].double().numpy().reshape(-1), each["mask"].numpy().reshape(-1)
    inverse = np.linalg.inv(np.kron(damped(each["gradients"]), damped(each["inputs"])))
    delta = -inverse[:, pruned] @ np.linalg.solve(inverse[np.ix_(pruned, pruned)], weight[pruned])
    found = fitted(**each, steps=MANY)
    np.testing.assert_allclose(found.numpy().reshape(-1), weight + delta, atol=2e-3, rtol=0)
    assert not found[each["mask"]].any()
    assert np.abs(delta[~pruned]).max() > 0.1
    least = objective(delta.reshape(found.shape), each["inputs"], each["gradients"])
    ours = objective(found - each["weight"], each["inputs"], each["gradients"])
    assert least == pytest.approx(ours, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_update_of_outputs_is_least_squares_of_each_row(seed: int) -> None:
    each = example(seed)
    del each["gradients"]
    expected = row_by_row(each["weight"].double().numpy(), each["mask"].numpy(), damped(each["inputs"]))
    np.testing.assert_allclose(fitted(**each, steps=MANY).numpy(), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("both", [False, True])
def test_no_other_weights_on_the_support_are_better(both: bool) -> None:
    each = example()
    factors = {"inputs": each["inputs"], "gradients": each["gradients"] if both else None}
    found = fitted(each["weight"], each["mask"], **factors, steps=MANY).double()
    best = objective(found - each["weight"], **factors)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-3, 1e-2, 1e-1):
        for _ in range(100):
            step = size * torch.randn(found.shape, generator=generator).masked_fill(each["mask"], 0)
            assert objective(found + step - each["weight"], **factors) > best * (1 - 1e-9)
    left = damped(each["gradients"]) if both else np.eye(len(found))
    slope = left @ (found - each["weight"]).numpy() @ damped(each["inputs"])
    assert np.abs(slope[~each["mask"].numpy()]).max() < 1e-4 * np.abs(slope).max()  # and not zero in the mask


@pytest.mark.parametrize("both", [False, True])
def test_any_start_leads_to_the_same_and_each_step_lowers_the_objective(both: bool) -> None:
    each = example(outputs=20, inputs=60)
    weight, mask = each["weight"], each["mask"]
    factors = {"inputs": each["inputs"], "gradients": each["gradients"] if both else None}
    best = objective(fitted(weight, mask, **factors, steps=MANY) - weight, **factors)
    start = weight + torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    for begin in (weight, start):
        values = [
            objective(fitted(weight, mask, **factors, start=begin, steps=steps) - weight, **factors)
            for steps in (0, 1, 5, STEPS, MANY)
        ]
        assert values == sorted(values, reverse=True)
        assert values[-1] == pytest.approx(best, rel=1e-3)
        assert values[3] < 0.5 * values[0]
    untouched = fitted(weight, mask, **factors, steps=0)
    assert torch.equal(untouched, weight.masked_fill(mask, 0))


@pytest.mark.parametrize("both", [False, True])
def test_a_start_at_the_optimum_stays_there(both: bool) -> None:
    """Steps after convergence have nothing but rounding to work on, and underflow in the end."""
    for seed in range(100):
        each = example(seed, outputs=1 + seed % 5, inputs=1 + seed % 7)
        if not both:
            del each["gradients"]
        found = fitted(**each, steps=MANY)
        torch.testing.assert_close(fitted(**each, start=found, steps=MANY), found, rtol=1e-3, atol=1e-3)


def test_dead_inputs_and_outputs_keep_their_weights() -> None:
    each = example()
    for factor, index in (("inputs", 3), ("gradients", 2)):
        each[factor][index] = each[factor][:, index] = 0
    assert torch.isfinite(fitted(**each, steps=MANY)).all()
    found = fitted(each["weight"], each["mask"], each["inputs"], steps=MANY)
    alone = each["weight"][:, 3].masked_fill(each["mask"][:, 3], 0)
    torch.testing.assert_close(found[:, 3], alone)  # there is nothing that it could make up for
    for dead in ("inputs", "gradients"):
        none = example() | {dead: torch.zeros_like(each[dead])}
        assert torch.isfinite(fitted(**none)).all()
    both = example() | {name: torch.zeros_like(each[name]) for name in ("inputs", "gradients")}
    assert torch.equal(fitted(**both), both["weight"].masked_fill(both["mask"], 0))


@pytest.mark.parametrize("factor", ["inputs", "gradients"])
def test_products_that_are_not_positive_definite_are_one_line(factor: str) -> None:
    each = example()
    each[factor] *= -10 / each[factor].diagonal().mean()
    line = "the curvature of a matrix is not positive definite; in params.yaml, raise prune.calibration_tokens, or set "
    with pytest.raises(UserError, match=f"^{re.escape(line)}prune.method to kfac$"):
        fitted(**each)
    if factor == "inputs":
        with pytest.raises(UserError, match=f"^{re.escape(line)}prune.update to none$"):
            fitted(each["weight"], each["mask"], each["inputs"])


@pytest.mark.parametrize("method", ["kfac", "surgeon"])
@pytest.mark.parametrize("shots", [1, 3])
def test_shots_prune_more_each_time_and_k_in_the_end(
    tiny_folder: Path, original: Path, method: str, shots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny_folder, original, CPU)
    k = 7001
    zeros, chosen = [], []

    def counted(*arguments: Any) -> dict[str, Curvature]:
        zeros.append(sum(int((loaded.weights[name] == 0).sum()) for name in loaded.structure.prunable))
        return curvatures(*arguments)

    def kept_masks(*arguments: Any) -> dict[str, Mask]:
        chosen.append(masks_over_all(*arguments))
        return chosen[-1]

    monkeypatch.setattr(gradual, "curvatures", counted)
    monkeypatch.setattr(gradual, "masks_over_all", kept_masks)
    masks = prune_over_all(loaded, windows(loaded), on_gradients(method), k, shots)
    assert zeros == [k * shot // shots for shot in range(shots)]
    rounds = shots * (3 if method == "surgeon" else 1)
    assert [sum(int(mask.sum()) for mask in each.values()) for each in chosen] == [
        k * done // rounds for done in range(1, rounds + 1)
    ]
    for before, after in pairwise(chosen):
        assert all((after[name] | ~mask).all() for name, mask in before.items())  # none comes back
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, chosen[-1][name])
        np.testing.assert_array_equal(loaded.weights[name].numpy() == 0, mask)
    assert sum(int(mask.sum()) for mask in masks.values()) == k


def test_updates_aim_at_the_original_from_where_they_are(tiny_folder: Path, original: Path) -> None:
    """So that the errors of earlier shots are made up for, and no step is taken twice."""
    loaded = load(tiny_folder, original, CPU)
    dense = {name: by_output(loaded, name, loaded.weights[name]).clone() for name in loaded.structure.prunable}
    names, last = list(dense), {name: weight.clone() for name, weight in dense.items()}
    calls = 0

    def update(*given: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        before, mask, inputs, gradients, start = given
        name = names[calls % len(names)]
        calls += 1
        assert torch.equal(before, dense[name])
        assert torch.equal(start, last[name])
        last[name] = fitted(before, mask, inputs, gradients, start)
        return last[name]

    prune_over_all(loaded, windows(loaded), replace(on_gradients("surgeon"), update=update), 5000, 2)
    assert calls == 2 * 3 * len(names)
    assert all(torch.equal(by_output(loaded, name, loaded.weights[name]), weight) for name, weight in last.items())


@torch.no_grad()
def divergence(loaded: Loaded, dense: Loaded, texts: Sequence[torch.Tensor]) -> float:
    """The mean KL divergence of predictions from the dense model's."""
    total, count = 0.0, 0
    for text in texts:
        before, after = (each.model(text).logits[0].double().log_softmax(-1) for each in (dense, loaded))
        total += float(functional.kl_div(after, before, log_target=True, reduction="sum"))
        count += text.shape[1]
    return total / count


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_surgeon_stays_closer_than_its_mask_alone(tiny_folder: Path, original: Path, share: float) -> None:
    dense = load(tiny_folder, original, CPU)
    texts = windows(dense, 500)
    k = round(share * sum(dense.weights[name].numel() for name in dense.structure.prunable))
    distances = {}
    for method, shots in (("kfac", 1), ("surgeon", 1), ("surgeon", 3)):
        loaded = load(tiny_folder, original, CPU)
        prune_over_all(loaded, texts, on_gradients(method), k, shots)
        distances[method, shots] = divergence(loaded, dense, texts)
    assert distances["surgeon", 1] < 0.7 * distances["kfac", 1]
    assert distances["surgeon", 3] < 0.7 * distances["kfac", 1]


def blocks_masks(loaded: Loaded, share: float) -> dict[str, Mask]:
    """A mask of each matrix that knows nothing of what it reads."""
    generator = np.random.default_rng(0)
    return {name: generator.random(loaded.weights[name].shape) < share for name in loaded.structure.prunable}


@torch.no_grad()
def test_outputs_are_fitted_block_by_block(tiny_folder: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row solved by itself, in a run of the whole model as it is by then."""
    monkeypatch.setattr("stages.lib.pruning.calibrated.fitted", partial(fitted, steps=MANY))
    loaded = load(tiny_folder, original, CPU)
    texts, masks = windows(loaded), blocks_masks(loaded, 0.4)
    reference = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    expected = {}
    for block in range(2):
        inside = [name for name in masks if f".{block}." in name]
        with tokens_kept(reference, inside) as (inputs, _):
            for text in texts:
                reference(text)
        for name in inside:
            read = torch.cat(inputs[name])
            weight, mask = (
                by_output(loaded, name, each) for each in (loaded.weights[name].double().numpy(), masks[name])
            )
            expected[name] = row_by_row(weight, mask, damped(read.double().T @ read.double()))
            by_output(loaded, name, reference.get_parameter(name)).copy_(torch.from_numpy(expected[name]))
    fit_outputs(loaded, texts, masks)
    for name, mask in masks.items():
        found = loaded.weights[name].numpy()
        assert not found[mask].any()
        np.testing.assert_allclose(by_output(loaded, name, found), expected[name], atol=5e-3, rtol=0, err_msg=name)


@torch.no_grad()
def test_fitted_outputs_are_closer_in_each_matrix(tiny_folder: Path, original: Path) -> None:
    """In the first block, with the usual number of steps: almost the least error that there is."""
    loaded = load(tiny_folder, original, CPU)
    texts, masks = windows(loaded), blocks_masks(loaded, 0.4)
    dense = {name: weight.clone() for name, weight in loaded.weights.items()}
    inside = loaded.structure.weights([0])
    with tokens_kept(loaded.model, inside) as (inputs, _):
        for text in texts:
            loaded.model(text)
    fit_outputs(loaded, texts, masks)
    for name in inside:
        read = torch.cat(inputs[name]).double()
        before, after, mask = (
            by_output(loaded, name, each) for each in (dense[name], loaded.weights[name], torch.from_numpy(masks[name]))
        )
        products = read.T @ read
        zeroed, ours = (objective(new - before, products) for new in (before.masked_fill(mask, 0), after))
        least = objective(
            row_by_row(before.double().numpy(), mask.numpy(), damped(products)) - before.numpy(), products
        )
        assert least * (1 - 1e-6) <= ours < 1.02 * least, name
        assert ours < 0.9 * zeroed, name


def with_dead(loaded: Loaded) -> None:
    """A block whose feed-forward reads and gives some zeros only, and one whose outputs nobody reads."""
    first, last = loaded.structure.feed_forwards[0], loaded.structure.feed_forwards[-1]
    for tensor in first.tensors:
        weight = loaded.model.get_parameter(tensor.name)
        if tensor.axis is not None:
            weight.index_fill_(tensor.axis, torch.tensor([0, 1]), 0)  # neurons that are off: no gradient, no input
    name = last.tensors[-1].name if loaded.weights[last.tensors[-1].name].ndim == 2 else last.tensors[-2].name
    loaded.model.get_parameter(name).zero_()  # nothing is read of the layers before it


@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
@pytest.mark.parametrize("method", ["kfac", "surgeon"])
def test_exactly_k_with_dead_inputs_and_outputs(tiny_folder: Path, original: Path, method: str, share: float) -> None:
    loaded = load(tiny_folder, original, CPU)
    with torch.no_grad():
        with_dead(loaded)
    texts = windows(loaded)
    found = curvatures(loaded, texts, input_squares)
    dead = {
        name: (each.gradients[:, None] * each.inputs == 0) | (by_output(loaded, name, loaded.weights[name]) == 0)
        for name, each in found.items()
    }
    assert any((each.inputs == 0).any() for each in found.values())
    assert any((each.gradients == 0).all() for each in found.values())
    k = round(share * sum(mask.numel() for mask in dead.values()))
    masks = prune_over_all(loaded, texts, on_gradients(method), k, 2)
    assert sum(int(mask.sum()) for mask in masks.values()) == k
    for name, mask in masks.items():
        assert torch.isfinite(loaded.weights[name]).all()
        assert not loaded.weights[name][torch.from_numpy(mask)].any()
    if method == "kfac":  # an update may revive a zero that is not pruned yet
        lost = sum(int((by_output(loaded, name, masks[name]) & dead[name].numpy()).sum()) for name in masks)
        assert lost == min(k, sum(int(each.sum()) for each in dead.values()))


@pytest.mark.parametrize("method", ["kfac", "surgeon"])
@pytest.mark.parametrize(("dtype", "remedy"), [(torch.float32, "repair the model"), (torch.float16, "set compute.dt")])
def test_curvature_that_is_not_finite_is_one_line(
    tiny_folder: Path, original: Path, method: str, dtype: torch.dtype, remedy: str
) -> None:
    loaded = load(tiny_folder, original, Device(torch.device("cpu"), dtype))
    texts = windows(loaded)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[texts[0][0, 9]] = torch.inf
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(UserError, match=rf"^the sums over the inputs of \S+ are not finite in {name}; {remedy}"):
        prune_over_all(loaded, texts, on_gradients(method), 100, 1)


def test_gradients_that_are_not_finite_are_one_line(tiny_folder: Path, original: Path) -> None:
    """The body's last norm has no weight in any matrix's inputs, and all gradients go through it."""
    loaded = load(tiny_folder, original, CPU)
    with torch.no_grad():
        norm = [module for name, module in loaded.body.named_children() if name in ("norm", "ln_f")]
        norm[0].weight.fill_(1e38)
    with pytest.raises(UserError, match=r"^the sums over the gradients of \S+ are not finite in float32; repair the m"):
        prune_over_all(loaded, windows(loaded), on_gradients("kfac"), 100, 1)


def test_a_text_that_predicts_no_token_is_one_line(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    single = [window[:, : loaded.first_target] for window in windows(loaded)]
    with pytest.raises(UserError, match=r"^the calibration text gives no gradients; set prune.calibration_tokens to 2"):
        prune_over_all(loaded, single, on_gradients("kfac"), 100, 1)


def test_gradients_that_underflow_are_one_line(tiny_folder: Path, original: Path) -> None:
    """All gradients go through the body's last norm."""
    loaded = load(tiny_folder, original, Device(torch.device("cpu"), torch.float16))
    with torch.no_grad():
        norm = [module for name, module in loaded.body.named_children() if name in ("norm", "ln_f")]
        norm[0].weight.fill_(1e-7)
        loaded.model.get_output_embeddings().weight.mul_(1e-2)
    with pytest.raises(UserError, match=r"^the gradients of \S+ are all zero in float16; set compute.dtype to float"):
        prune_over_all(loaded, windows(loaded), on_gradients("kfac"), 100, 1)


def test_an_update_that_the_dtype_cannot_hold_is_one_line(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, Device(torch.device("cpu"), torch.float16))
    larger = replace(on_gradients("surgeon"), update=lambda before, *_: 1e6 * before.float())
    with pytest.raises(UserError, match=r"^the updated weights of \S+ are not finite in float16; set compute.dtype"):
        prune_over_all(loaded, windows(loaded), larger, 100, 1)


def test_fitted_outputs_that_the_dtype_cannot_hold_are_one_line(
    tiny_folder: Path, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(tiny_folder, original, Device(torch.device("cpu"), torch.float16))
    monkeypatch.setattr("stages.lib.pruning.calibrated.fitted", lambda weight, *_: 1e6 * weight.float())
    with pytest.raises(UserError, match=r"^the updated weights of \S+ are not finite in float16; set compute.dtype"):
        fit_outputs(loaded, windows(loaded), blocks_masks(loaded, 0.4))
