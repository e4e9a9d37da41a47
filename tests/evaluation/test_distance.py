"""The distance of a model's predictions from the original's, against a plain loop over two models' logits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, load, magnitude_recipe, prose
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from stages.lib.evaluation.perplexity import score, score_original, score_text
from stages.lib.files.errors import UserError
from stages.lib.files.rows import SEPARATOR
from stages.lib.inference import likelihood
from stages.lib.inference.final_states import OriginalStates
from stages.lib.inference.likelihood import tokenize
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Perplexity
from stages.lib.recipes.recipe import write_recipe
from stages.lib.weights.checkpoint import Checkpoint

DOCUMENTS = [prose(200, 1), prose(150, 2), "🦜 naïve — 東京\n", prose(90, 3)]
SETTINGS = Perplexity(context=64, stride=48, batch_size=2)


@pytest.fixture
def dense(tiny_folder: Path, original: Path) -> Loaded:
    return load(tiny_folder, original, CPU)


@pytest.fixture
def pruned(tiny_folder: Path, tmp_path: Path) -> Loaded:
    recipe = tmp_path / "pruned"
    recipe.mkdir()
    write_recipe(magnitude_recipe(tiny_folder, 9000), recipe)
    return load(tiny_folder, recipe, CPU)


@pytest.fixture
def states(dense: Loaded, tmp_path: Path) -> Path:
    score_original(dense, tokenize(dense.tokenizer, DOCUMENTS), SETTINGS, tmp_path / "states")
    return tmp_path / "states"


def of_original(folder: Path, states: Path) -> OriginalStates:
    return OriginalStates(states, Checkpoint(folder), CPU)


def scored(loaded: Loaded, original: OriginalStates) -> pd.DataFrame:
    return score_text(loaded, tokenize(loaded.tokenizer, DOCUMENTS), SETTINGS, original)


def naive(first: PreTrainedModel, second: PreTrainedModel, tokens: Sequence[int]) -> pd.DataFrame:
    """Both models' own logits of each window, in float64."""
    found = []
    reached = 0
    for begin in range(0, len(tokens), SETTINGS.stride):
        window = torch.tensor([list(tokens[begin : begin + SETTINGS.context])])
        with torch.no_grad():
            p, q = (model(window, use_cache=False).logits[0].double().log_softmax(-1) for model in (first, second))
        for position in range(max(reached - begin, 1), window.shape[1]):
            before = position - 1
            found.append(
                {
                    "nll": -float(q[before, window[0, position]]),
                    "kl": float(functional.kl_div(q[before], p[before], log_target=True, reduction="sum")),
                    "top": int(q[before].argmax()),
                    "original_top": int(p[before].argmax()),
                }
            )
        reached = begin + window.shape[1]
        if reached == len(tokens):
            break
    return pd.DataFrame(found)


@pytest.mark.parametrize("logits_at_once", [1, 5000, 1 << 23])
def test_equals_a_plain_loop(
    tiny_folder: Path,
    dense: Loaded,
    pruned: Loaded,
    states: Path,
    logits_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", logits_at_once)
    table = scored(pruned, of_original(tiny_folder, states))
    expected = naive(dense.model, pruned.model, pruned.tokenizer(SEPARATOR.join(DOCUMENTS))["input_ids"])
    for column in ("nll", "kl"):
        np.testing.assert_allclose(table[column], expected[column], rtol=0, atol=1e-5)
    assert expected["kl"].mean() > 0.01
    decode = pruned.tokenizer.decode
    assert table["top"].tolist() == [decode([token]) for token in expected["top"]]
    assert table["original_top"].tolist() == [decode([token]) for token in expected["original_top"]]
    assert table["same_top"].tolist() == (expected["top"] == expected["original_top"]).astype(float).tolist()
    assert 0 < table["same_top"].mean() < 1


def test_the_original_is_at_no_distance_from_itself(tiny_folder: Path, dense: Loaded, states: Path) -> None:
    table = scored(dense, of_original(tiny_folder, states))
    assert table["kl"].max() == 0
    assert (table["same_top"] == 1).all()


def test_scores_do_not_depend_on_the_distance(tiny_folder: Path, pruned: Loaded, states: Path) -> None:
    columns = ["document", "window", "end", "bytes", "nll"]
    with_distance = scored(pruned, of_original(tiny_folder, states))
    assert with_distance[columns].equals(score(pruned, DOCUMENTS, SETTINGS))


def test_the_originals_body_is_never_loaded_and_never_runs(tiny_folder: Path, dense: Loaded, states: Path) -> None:
    head = of_original(tiny_folder, states).head
    vocabulary = head.model.get_output_embeddings().weight
    assert torch.equal(vocabulary, dense.model.get_output_embeddings().weight)
    assert not vocabulary.is_meta
    assert all(weight.is_meta for block in head.blocks for weight in block.parameters())


def test_a_changed_head_is_compared_with_the_originals_own(tiny_folder: Path, dense: Loaded, states: Path) -> None:
    """Though the two models give the same states."""
    with torch.no_grad():
        dense.model.get_output_embeddings().weight *= 0.5
        before = load(tiny_folder, Path("data/original"), CPU)
    expected = naive(before.model, dense.model, before.tokenizer(SEPARATOR.join(DOCUMENTS))["input_ids"])
    table = scored(dense, of_original(tiny_folder, states))
    np.testing.assert_allclose(table["kl"], expected["kl"], rtol=0, atol=1e-5)


def test_other_tokens_have_no_distance(
    tiny_folder: Path, pruned: Loaded, states: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """As a model of another tokenizer reads them."""
    other = tokenize(tokenizer, [*DOCUMENTS[:2], prose(90, 4)])
    table = score_text(pruned, other, SETTINGS, of_original(tiny_folder, states))
    assert list(table) == ["document", "window", "end", "bytes", "nll"]


def test_another_vocabulary_has_no_distance(tiny_folder: Path, pruned: Loaded, states: Path) -> None:
    pruned.model.resize_token_embeddings(384)
    table = scored(pruned, of_original(tiny_folder, states))
    assert "kl" not in table


def test_damaged_states_are_refused(tiny_folder: Path, states: Path) -> None:
    (states / "window-000001.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"window-000001\.safetensors: damaged, .*stages\.verify"):
        of_original(tiny_folder, states)


def test_a_divergence_that_is_not_finite_names_its_window(tiny_folder: Path, dense: Loaded, states: Path) -> None:
    original = of_original(tiny_folder, states)
    with torch.no_grad():
        original.head.model.get_output_embeddings().weight[0] = torch.nan
    with pytest.raises(UserError, match="the divergences from the original of window 0 are not finite"):
        scored(dense, original)
