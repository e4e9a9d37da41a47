"""Sensitivity: each point against the model that really has those weights at zero, scored afresh."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, DEPTH_KEY, TINY, load, magnitude_recipe, prose
from transformers import PreTrainedTokenizerFast

from stages.lib.evaluation.perplexity import score_text
from stages.lib.evaluation.sensitivity import score_points
from stages.lib.figures.tables import sensitivity_tables
from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.inference.blockwise import BlockInputs
from stages.lib.inference.likelihood import TokenizedText, tokenize
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Perplexity
from stages.lib.plumbing.params import Sensitivity as Settings
from stages.lib.recipes.recipe import write_recipe
from stages.lib.reporting.pictures import draw_sensitivity
from stages.lib.weights.checkpoint import Checkpoint

SETTINGS = Perplexity(context=32, stride=16, batch_size=3)
DEPTH = 4


@pytest.fixture(params=["llama", "gpt2"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / request.param
    TINY[request.param](**{DEPTH_KEY[request.param]: DEPTH}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)
    return folder


@pytest.fixture
def loaded(folder: Path, original: Path) -> Loaded:
    return load(folder, original, CPU)


@pytest.fixture
def text(loaded: Loaded) -> TokenizedText:
    return tokenize(loaded.tokenizer, [prose(40, seed) for seed in range(4)])


Tables = Callable[[list[float], float], dict[str, list[dict[str, Any]]]]


@pytest.fixture
def tables(loaded: Loaded, text: TokenizedText) -> Tables:
    """The rows of the tables, by the parts pruned, at given sparsities and with each part alone at another."""

    def of(sparsities: list[float], alone: float) -> dict[str, list[dict[str, Any]]]:
        settings = Settings(sparsities=sparsities, alone=alone, tokens=100)
        found = sensitivity_tables(score_points(loaded, text, settings, SETTINGS), 100, 0)
        return {name: table.to_dict("records") for name, table in found.items()}

    return of


def perplexity_of(loaded: Loaded, text: TokenizedText) -> float:
    return float(np.exp(score_text(loaded, text, SETTINGS)["nll"].mean()))


def zeroed(folder: Path, original: Path, names: list[str], sparsity: float) -> Loaded:
    """The naive way: sort all magnitudes of the tensors, find the k-th, zero up to it."""
    fresh = load(folder, original, CPU)
    weights = [fresh.model.get_parameter(name) for name in names]
    magnitudes = torch.cat([weight.detach().abs().flatten() for weight in weights])
    k = round(sparsity * len(magnitudes))
    with torch.no_grad():
        bound = magnitudes.sort().values[k - 1] if k else -1
        for weight in weights:
            weight[weight.abs() <= bound] = 0
    assert sum(int((weight == 0).sum()) for weight in weights) == k
    return fresh


def test_points_by_sparsity(tables: Tables, folder: Path, text: TokenizedText, tmp_path: Path) -> None:
    points = tables([0, 0.2, 0.7], 0.5)["sparsities"]
    prunable = sum(Checkpoint(folder).size(name) for name in Checkpoint(folder).structure.prunable)
    for point in points:
        k = round(point["sparsity"] * prunable)
        recipe = tmp_path / f"recipe-{k}"
        recipe.mkdir()
        write_recipe(magnitude_recipe(folder, k), recipe)
        pruned = load(folder, recipe, CPU)
        assert point["perplexity"] == pytest.approx(perplexity_of(pruned, text), rel=2e-5)
        assert point["pruned_weights"] == k
        assert point["effective_parameters"] == sum(int(p.count_nonzero()) for p in pruned.model.parameters())
        assert point["ratio"] == pytest.approx(point["perplexity"] / points[0]["perplexity"], rel=2e-5)
        assert point["perplexity_low"] <= point["perplexity"] <= point["perplexity_high"]
        nats = math.log(point["perplexity"] / points[0]["perplexity"])
        assert point["nats_per_million"] == pytest.approx(nats / max(1, k) * 1e6, rel=1e-3, abs=1e-3)
        assert point["items"] == 4
    assert points[0]["ratio"] == 1
    assert np.isnan(points[0]["ratio_low"])  # nothing was pruned, so nothing differs


def test_points_by_matrix(tables: Tables, folder: Path, original: Path, text: TokenizedText) -> None:
    points = tables([0.1], 0.5)["matrices"]
    assert [point["matrix"] for point in points] == [matrix.kind for matrix in Checkpoint(folder).structure.matrices[0]]
    for point in points:
        names = [name for name in Checkpoint(folder).structure.prunable if f".{point['matrix']}." in name]
        assert len(names) == DEPTH
        pruned = zeroed(folder, original, names, 0.5)
        assert point["perplexity"] == pytest.approx(perplexity_of(pruned, text), rel=2e-5)
        assert point["effective_parameters"] == sum(int(p.count_nonzero()) for p in pruned.model.parameters())


def test_points_by_block(tables: Tables, folder: Path, original: Path, text: TokenizedText) -> None:
    points = tables([0.1], 0.5)["blocks"]
    assert [point["block"] for point in points] == list(range(DEPTH))
    for point in points:
        names = [name for name in Checkpoint(folder).structure.prunable if f".{point['block']}." in name]
        pruned = zeroed(folder, original, names, 0.5)
        assert point["perplexity"] == pytest.approx(perplexity_of(pruned, text), rel=2e-5)
    assert len({point["perplexity"] for point in points}) == DEPTH


def test_the_model_is_left_as_it_was(tables: Tables, loaded: Loaded, folder: Path, original: Path) -> None:
    first = tables([0.1, 0.5], 0.4)
    for (name, after), (_, before) in zip(
        loaded.model.named_parameters(), load(folder, original, CPU).model.named_parameters(), strict=True
    ):
        assert torch.equal(after, before), name
    assert tables([0.5], 0.4)["blocks"] == first["blocks"]


@pytest.mark.parametrize("block", range(DEPTH))
def test_a_resumed_pass_is_the_whole_pass(loaded: Loaded, folder: Path, block: int) -> None:
    blocks = loaded.blocks
    assert len(blocks) == DEPTH
    inputs, ids = BlockInputs(loaded), [torch.arange(20)[None], torch.arange(30, 60)[None]]
    with torch.no_grad():
        with inputs.recorded():
            whole = [loaded.model(part, use_cache=False).logits for part in ids]
        calls: list[int] = []
        for number, module in enumerate(blocks):
            next(iter(module.children())).register_forward_hook(lambda *_, number=number: calls.append(number))
        for _ in range(2):
            with inputs.resumed(block):
                resumed = [loaded.model(part, use_cache=False).logits for part in ids]
            for mine, theirs in zip(resumed, whole, strict=True):
                assert torch.equal(mine, theirs)
        assert set(calls) == set(range(block, DEPTH))  # what comes before is not computed
        assert torch.equal(loaded.model(ids[0], use_cache=False).logits, whole[0])


def test_one_window_has_no_interval(loaded: Loaded, tmp_path: Path) -> None:
    text = tokenize(loaded.tokenizer, [prose(20, 0)])
    wide = Perplexity(context=len(text.tokens), stride=len(text.tokens), batch_size=1)
    scores = score_points(loaded, text, Settings(sparsities=[0, 0.5], alone=0.5, tokens=100), wide)
    tables = sensitivity_tables(scores, 100, 0)
    for table in tables.values():
        assert table[["perplexity", "ratio"]].notna().all(axis=None)
        assert table[["perplexity_low", "perplexity_high", "ratio_low", "ratio_high"]].isna().all(axis=None)
    draw_sensitivity(tables, 0.5, tmp_path / "sensitivity.svg")


def test_a_loss_that_is_not_finite_ends_the_stage(loaded: Loaded, text: TokenizedText) -> None:
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[text.tokens[5]] = torch.inf
    with pytest.raises(UserError, match=r"the losses of window \d+ are not finite in float32"):
        score_points(loaded, text, Settings(sparsities=[0.2], alone=0.5, tokens=100), SETTINGS)
