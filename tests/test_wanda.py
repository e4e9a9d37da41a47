"""Wanda against its formula, written apart, on models of both families."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CPU, prose
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from stages.lib.budgets import spread
from stages.lib.calibration import calibration_windows
from stages.lib.families import family_of, prunable_weights
from stages.lib.models import Loaded, load
from stages.lib.wanda import smallest_of_rows, wanda_masks

K = 5001


def windows(loaded: Loaded, tokens: int = 300) -> list[torch.Tensor]:
    return calibration_windows(loaded, [prose(200, seed) for seed in range(3)], tokens, "prune.calibration_tokens")


def keep(inputs: list[torch.Tensor]) -> Callable[..., None]:
    return lambda module, given, output: inputs.append(given[0])


@torch.no_grad()
def naive_masks(folder: Path, texts: list[torch.Tensor]) -> dict[str, np.ndarray]:
    """The whole model is run for each block, whose inputs are kept whole, and each row is sorted by itself."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    names = prunable_weights(folder)
    modules = {name: model.get_submodule(name.removesuffix(".weight")) for name in names}
    total = sum(module.weight.numel() for module in modules.values())
    given_away = seen = 0
    masks = {}
    for block in range(2):
        inside = [name for name in names if f".{block}." in name]
        inputs: dict[str, list[torch.Tensor]] = {name: [] for name in inside}
        hooks = [modules[name].register_forward_hook(keep(inputs[name])) for name in inside]
        for text in texts:
            model(text)
        for hook in hooks:
            hook.remove()
        for name in inside:
            transposed = isinstance(modules[name], Conv1D)
            weight = modules[name].weight.T if transposed else modules[name].weight
            read = np.concatenate([part[0].numpy() for part in inputs[name]]).astype(np.float64)
            scores = np.abs(weight.numpy()) * np.sqrt((read**2).sum(axis=0)).astype(np.float32)
            mask = np.zeros(scores.shape, dtype=bool)
            for row in range(len(scores)):
                seen += scores.shape[1]
                count = K * seen // total - given_away
                given_away += count
                mask[row, sorted(range(scores.shape[1]), key=lambda column: scores[row, column])[:count]] = True
            weight[torch.from_numpy(mask)] = 0
            masks[name] = mask.T if transposed else mask
    assert given_away == K
    return masks


def test_masks_are_those_of_the_formula(tiny_folder: Path, original: Path) -> None:
    loaded = load(tiny_folder, original, CPU)
    texts = windows(loaded)
    assert [text.shape for text in texts] == [(1, 128), (1, 128), (1, 44)]
    expected = naive_masks(tiny_folder, texts)
    found = dict(wanda_masks(loaded, family_of(tiny_folder), texts, K))
    assert list(found) == prunable_weights(tiny_folder)
    for name, mask in found.items():
        np.testing.assert_array_equal(mask, expected[name])
        assert not loaded.model.get_parameter(name)[torch.from_numpy(mask.copy())].any()


@pytest.mark.parametrize("share", [0, 0.3, 0.999, 1])
def test_exactly_k_and_each_row_loses_its_share(tiny_folder: Path, original: Path, share: float) -> None:
    loaded, family = load(tiny_folder, original, CPU), family_of(tiny_folder)
    k = round(share * sum(loaded.model.get_parameter(name).numel() for name in prunable_weights(tiny_folder)))
    masks = dict(wanda_masks(loaded, family, windows(loaded, 40), k))
    assert sum(int(mask.sum()) for mask in masks.values()) == k
    for mask in masks.values():
        assert np.abs(mask.sum(axis=family.input_axis) - share * mask.shape[family.input_axis]).max() <= 1


@settings(deadline=None)
@given(st.data())
def test_a_budget_is_spread_evenly(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 10**9), min_size=1, max_size=50))
    k = data.draw(st.integers(0, sum(sizes)))
    parts = spread(k, sizes)
    assert parts.sum() == k
    assert all(0 <= part <= size for part, size in zip(parts, sizes, strict=True))
    assert all(abs(part - k * size / sum(sizes)) < 1 + 1e-6 for part, size in zip(parts, sizes, strict=True))


@settings(deadline=None)
@given(st.data())
def test_the_smallest_of_each_row(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 9)))
    scores = data.draw(hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.5, 1.0, 2.0])))
    counts = data.draw(hnp.arrays(np.int64, shape[0], elements=st.integers(0, shape[1])))
    found = smallest_of_rows(torch.from_numpy(scores), torch.from_numpy(counts)).numpy()
    for row, count, mask in zip(scores, counts, found, strict=True):
        first = sorted(range(len(row)), key=lambda column: (row[column], column))[:count]
        assert set(np.flatnonzero(mask)) == set(first)
