"""Heads: features at the last real token, the logistic regression, and fine-tuning that holds the mask."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, enclosing, load, magnitude_recipe, prose
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from transformers import AutoModel

from stages.lib.evaluation.classification import fit_head, predict_classes, tokenize
from stages.lib.evaluation.finetuning import fine_tune
from stages.lib.files.errors import UserError
from stages.lib.inference.batches import by_length, features, last_real, last_states, pad, positions
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Classify
from stages.lib.recipes.recipe import write_recipe

TEXTS = [prose(words, words) for words in (9, 3, 14, 1, 7)]


@pytest.fixture
def loaded(tiny_folder: Path, original: Path) -> Loaded:
    return load(tiny_folder, original, CPU)


def last_states_one_by_one(loaded: Loaded, folder: Path) -> torch.Tensor:
    """Each text alone, without padding, through a body loaded by transformers itself."""
    body = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        return torch.stack(
            [body(**loaded.tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1] for text in TEXTS]
        )


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_real_token_is_read(loaded: Loaded, tiny_folder: Path, side: Literal["left", "right"]) -> None:
    tokens = tokenize(loaded, TEXTS, 100)
    with torch.inference_mode():
        states = last_states(loaded, tokens, side)
    torch.testing.assert_close(states, last_states_one_by_one(loaded, tiny_folder), rtol=1e-4, atol=1e-5)


def test_features_are_in_the_order_of_the_texts(loaded: Loaded, tiny_folder: Path) -> None:
    found = features(loaded, tokenize(loaded, TEXTS, 100), batch_size=2)
    np.testing.assert_allclose(found, last_states_one_by_one(loaded, tiny_folder).numpy(), rtol=1e-4, atol=1e-5)


def test_texts_are_cut_to_the_setting_and_to_the_model(loaded: Loaded) -> None:
    assert [len(tokens) for tokens in tokenize(loaded, [prose(500), "a"], 50)] == [50, 1]
    assert len(tokenize(loaded, [prose(500)], 1000)[0]) == 128


def test_a_token_that_the_tokenizer_appends_is_not_read(loaded: Loaded) -> None:
    tokenizer = enclosing(loaded.tokenizer)
    plain = tokenize(loaded, TEXTS, 12)
    assert tokenize(replace(loaded, tokenizer=tokenizer), TEXTS, 13) == [[tokenizer.bos_token_id, *t] for t in plain]


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9))
def test_padding(sequences: list[list[int]]) -> None:
    for side in ("left", "right"):
        ids, mask = pad(sequences, 0, side)
        assert [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)] == sequences
        assert ids[torch.arange(len(ids)), last_real(mask)].tolist() == [sequence[-1] for sequence in sequences]
        for row, real in zip(positions(mask), mask, strict=True):
            assert row[real.bool()].tolist() == list(range(int(real.sum())))


@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 7))
def test_batches_by_length_hold_every_index_once(lengths: list[int], batch_size: int) -> None:
    batches = list(by_length(lengths, batch_size))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    flat = [lengths[index] for batch in batches for index in batch]
    assert flat == sorted(lengths, reverse=True)


def test_the_head_is_a_logistic_regression_on_standardized_features() -> None:
    generator = np.random.default_rng(0)
    train, test = generator.normal(3, 2, (80, 5)).astype("float32"), generator.normal(3, 2, (30, 5)).astype("float32")
    labels = (train[:, 0] + train[:, 1] > 6).astype(int)
    probabilities = fit_head(train, labels, test, 0.5, seed=0)
    mean, deviation = train.mean(axis=0, dtype="float64"), train.std(axis=0, dtype="float64")
    expected = LogisticRegression(C=0.5).fit((train - mean) / deviation, labels)
    np.testing.assert_allclose(probabilities, expected.predict_proba((test - mean) / deviation), atol=1e-3)


def classify_settings(**changes: object) -> Classify:
    settings = {
        "mode": "all",
        "train_examples": 24,
        "test_examples": 8,
        "max_tokens": 32,
        "batch_size": 4,
        "regularization": 1.0,
        "learning_rate": 0.003,
        "epochs": 3,
    }
    return Classify.model_validate(settings | changes)


@pytest.fixture
def pruned(tiny_folder: Path, tmp_path: Path) -> Loaded:
    write_recipe(magnitude_recipe(tiny_folder, 6000), tmp_path)
    return load(tiny_folder, tmp_path, CPU, keep_masks=True)


def cats_and_dogs(loaded: Loaded, count: int) -> tuple[list[list[int]], np.ndarray]:
    labels = np.arange(count) % 2
    texts = [f"{prose(4, number)} {'dogs' if label else 'cat'}" for number, label in enumerate(labels)]
    return tokenize(loaded, texts, 32), labels


def test_fine_tuning_learns_and_holds_the_mask(pruned: Loaded) -> None:
    before = {name: parameter.detach().clone() for name, parameter in pruned.model.named_parameters()}
    tokens, labels = cats_and_dogs(pruned, 60)
    probabilities = fine_tune(pruned, tokens[:40], labels[:40], tokens[40:], classify_settings(epochs=10), 2, seed=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert (probabilities.argmax(axis=1) == labels[40:]).mean() > 0.8
    zeros = 0
    for name, mask in pruned.masks.items():
        after = pruned.model.get_parameter(name)
        assert (after[mask] == 0).all()
        assert (after[~mask] != before[name][~mask]).float().mean() > 0.9
        zeros += int((after == 0).sum())
    assert zeros == 6000


def test_fine_tuning_repeats_itself(tiny_folder: Path, original: Path) -> None:
    runs = []
    for _ in range(2):
        loaded = load(tiny_folder, original, CPU)
        train, labels = cats_and_dogs(loaded, 24)
        runs.append(fine_tune(loaded, train, labels, train, classify_settings(epochs=1), 2, seed=5))
    np.testing.assert_array_equal(*runs)


def test_a_loss_that_is_not_finite_ends_the_fine_tuning(pruned: Loaded) -> None:
    train, labels = cats_and_dogs(pruned, 24)
    with pytest.raises(UserError, match=r"diverged.*lower classify\.learning_rate"):
        fine_tune(pruned, train, labels, train, classify_settings(learning_rate=1e30, epochs=9), 2, seed=0)


@pytest.mark.parametrize("mode", ["head", "all"])
def test_predictions_are_right_where_the_class_is_predicted(loaded: Loaded, mode: str) -> None:
    texts = [f"{prose(4, number)} {'dogs' if number % 2 else 'cat'}" for number in range(60)]
    rows = pd.DataFrame({"document": map(str, range(60)), "text": texts, "label": np.arange(60) % 2})
    settings = classify_settings(mode=mode, train_examples=40, test_examples=20)
    found = predict_classes(loaded, rows[:40], rows[40:], settings, seed=0)
    assert found["right"].mean() == accuracy_score(found["label"], found["predicted"])
    assert 0 < found["right"].mean() < 1 or found["right"].dtype == float
    labels = dict(zip(rows["document"], rows["label"], strict=True))
    assert found["label"].tolist() == [labels[document] for document in found["document"]]
    assert found["probability"].between(0.5, 1).all()
