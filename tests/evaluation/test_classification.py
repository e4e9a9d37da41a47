"""Heads: features at the last real token, the logistic regression, and fine-tuning that holds the mask."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import (
    CPU,
    DEPTH_KEY,
    TINY,
    Finished,
    changed_params,
    enclosing,
    feed_forwards,
    load,
    magnitude_recipe,
    merged_by_three,
    prose,
    write_params,
)
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedTokenizerFast

from stages.lib.evaluation.classification import fit_head, predict_classes, tokenize
from stages.lib.evaluation.finetuning import fine_tune
from stages.lib.files.errors import UserError
from stages.lib.files.hashing import write_sums
from stages.lib.files.sampling import draw
from stages.lib.inference.batches import by_length, features, last_states, pad
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Classify
from stages.lib.recipes.recipe import write_recipe
from stages.lib.reporting.exporting import export
from stages.lib.weights.checkpoint import Checkpoint

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


def test_the_last_real_token_is_read(loaded: Loaded, tiny_folder: Path) -> None:
    tokens = tokenize(loaded, TEXTS, 100)
    with torch.inference_mode():
        states = last_states(loaded, tokens)
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


def test_no_room_behind_the_token_that_begins_a_text_is_refused(loaded: Loaded) -> None:
    with pytest.raises(UserError, match=r"classify\.max_tokens is 1, and 1 of them are for .* none is left"):
        tokenize(replace(loaded, tokenizer=enclosing(loaded.tokenizer)), TEXTS, 1)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=9), min_size=1, max_size=9))
def test_padding(sequences: list[list[int]]) -> None:
    for side in ("left", "right"):
        ids, mask = pad(sequences, 0, side)
        assert [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)] == sequences


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


def reviews_of(labels: list[Any], start: int = 0) -> pd.DataFrame:
    """A review for each label, whose last word is the label's."""
    words = {0: "cat", 1: "dogs", 2: "rain"}
    texts = [f"{prose(4, number)} {words[int(label)]}" for number, label in enumerate(labels, start)]
    documents = [str(number) for number in range(start, start + len(labels))]
    return pd.DataFrame({"document": documents, "text": texts, "label": labels})


@pytest.mark.parametrize("mode", ["head", "all"])
@pytest.mark.parametrize("labels", [[0, 2], [1, 2], [False, True], [0, 1, 2]])
def test_predictions_are_labels_whatever_their_numbers(loaded: Loaded, mode: str, labels: list[Any]) -> None:
    train = reviews_of(labels * 10)
    test = train.sample(frac=1, random_state=1)  # so a head that maps its classes is right about them
    settings = classify_settings(
        mode=mode, train_examples=len(train), test_examples=len(test), epochs=20, regularization=100.0
    )
    found = predict_classes(loaded, train, test, settings, seed=0)
    assert set(found["predicted"]) <= {int(label) for label in labels}
    given = dict(zip(test["document"], test["label"], strict=True))
    assert found["label"].tolist() == [int(given[document]) for document in found["document"]]
    assert found["right"].tolist() == (found["label"] == found["predicted"]).astype(float).tolist()
    assert found["right"].mean() > 0.8


@pytest.mark.parametrize("mode", ["head", "all"])
def test_training_reviews_that_lack_a_class_are_refused(loaded: Loaded, mode: str) -> None:
    train, test = reviews_of([0, 2] * 20), reviews_of([0, 1, 2] * 8, start=100)
    settings = classify_settings(mode=mode, train_examples=30, test_examples=20)
    drawn = draw(train, 30, 0, "")["label"].value_counts()
    says = f"lack a class ({drawn[0]} of class 0, 0 of class 1, {drawn[2]} of class 2); raise classify.train_examples"
    with pytest.raises(UserError, match=re.escape(says)):
        predict_classes(loaded, train, test, settings, seed=0)


def test_test_reviews_may_lack_a_class(loaded: Loaded) -> None:
    train = reviews_of([0, 1, 2] * 10)
    test = train[train["label"] == 2]
    settings = classify_settings(mode="head", train_examples=30, regularization=100.0)
    assert predict_classes(loaded, train, test, settings, seed=0)["right"].mean() > 0.8


def test_a_head_that_does_not_converge_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    train, labels = generator.normal(size=(200, 20)).astype("float32"), generator.integers(0, 2, 200)
    np.testing.assert_allclose(fit_head(train, labels, train, 1.0, seed=0).sum(axis=1), 1)
    monkeypatch.setattr("stages.lib.evaluation.classification.ITERATIONS", 2)
    with pytest.raises(UserError, match=r"did not converge in 2 iterations; lower classify\.regularization"):
        fit_head(train, labels, train, 1.0, seed=0)


@pytest.mark.parametrize("mode", ["head", "all"])
def test_a_review_without_tokens_is_refused(loaded: Loaded, mode: str) -> None:
    rows = reviews_of([0, 1] * 20)
    rows.loc[7, "text"] = ""
    settings = classify_settings(mode=mode, train_examples=40)
    with pytest.raises(UserError, match="review 7 has no tokens, so no state to read; remove it from the reviews"):
        predict_classes(loaded, rows, reviews_of([0, 1] * 8, start=100), settings, seed=0)


@pytest.mark.parametrize(
    ("mode", "what"), [("head", "the features of a review"), ("all", "the first losses of fine-tuning")]
)
def test_features_that_are_not_finite_are_one_line(tiny_folder: Path, original: Path, mode: str, what: str) -> None:
    loaded = load(tiny_folder, original, CPU)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[loaded.tokenizer("rain")["input_ids"][-1]] = torch.nan
    rows, test = reviews_of([0, 1] * 12), reviews_of([2, 0] * 8, start=100)
    test["label"] = 0
    with pytest.raises(UserError, match=f"{what} are not finite in float32; repair the model"):
        predict_classes(loaded, rows, test, classify_settings(mode=mode), seed=0)


def test_a_last_step_that_diverges_blames_the_learning_rate(loaded: Loaded) -> None:
    settings = classify_settings(mode="all", train_examples=8, batch_size=8, learning_rate=1e25)
    with pytest.raises(UserError, match=r"fine-tuning diverged .*; lower classify\.learning_rate"):
        predict_classes(loaded, reviews_of([0, 1] * 12), reviews_of([0, 1] * 12, start=100), settings, seed=0)


# Merged blocks and few bits.


def test_merged_blocks_are_fine_tuned_as_one(
    tiny_folder: Path, tmp_path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    """One step, against AdamW over leaves that are shared explicitly."""
    base, family = tmp_path / "base", Checkpoint(tiny_folder).structure.model_type
    no_dropout = {"embd_pdrop": 0, "attn_pdrop": 0, "resid_pdrop": 0} if family == "gpt2" else {}
    TINY[family](**{DEPTH_KEY[family]: 4}, **no_dropout).save_pretrained(base)
    tokenizer.save_pretrained(base)
    write_sums(base)
    loaded = load(base, merged_by_three(base, tmp_path / "merged"), CPU)
    (tmp_path / "out").mkdir()
    export(base, tmp_path / "merged", tmp_path / "out")
    body = AutoModelForCausalLM.from_pretrained(tmp_path / "out").base_model
    train, labels = cats_and_dogs(loaded, 8)
    settings = classify_settings(batch_size=8, epochs=1)
    fine_tune(loaded, train, labels, train, settings, 2, seed=3)

    torch.manual_seed(3)
    head = torch.nn.Linear(32, 2)
    torch.nn.init.normal_(head.weight, std=0.2)
    torch.nn.init.zeros_(head.bias)
    prefix = f"{loaded.model.base_model_prefix}."
    group = {name: names[0] for names in feed_forwards(base) for name in names}
    leaves: dict[str, torch.Tensor] = {}
    for name, weight in body.named_parameters():
        one = group.get(prefix + name, prefix + name).removeprefix(prefix)
        leaves[name] = leaves[one] if one in leaves else weight.detach().clone().requires_grad_()
    distinct = list({id(leaf): leaf for leaf in leaves.values()}.values())
    optimizer = torch.optim.AdamW([*distinct, *head.parameters()], lr=0.003, weight_decay=0.0)
    states = [
        torch.func.functional_call(body, leaves, (torch.tensor([text]),)).last_hidden_state[0, -1] for text in train
    ]
    torch.nn.functional.cross_entropy(head(torch.stack(states)), torch.from_numpy(labels)).backward()
    optimizer.step()
    for name, leaf in leaves.items():
        if not name.endswith("c_attn.bias"):  # keys' biases: their gradient is rounding, AdamW makes whole steps of it
            difference = (loaded.body.get_parameter(name) - leaf).abs()
            assert (difference > 1e-4).float().mean() < 0.01, name
    for name, one in group.items():
        assert torch.equal(loaded.model.get_parameter(name), loaded.model.get_parameter(one))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_few_bits_fine_tune_as_many_weights_as_float32(
    project: Path, run_stage: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """At the default learning rate, whose steps bfloat16 weights would not notice and float16 would not survive."""
    path, moved = project / "mine/model/model.safetensors", {}
    dense = {name: weight.bfloat16().float() for name, weight in load_file(path).items()}  # so loading changes none
    save_file(dense, path, metadata={"format": "pt"})

    def measured(loaded: Loaded, *others: Any) -> Any:
        found = features(loaded, *others)
        weights = {name: weight.float() for name, weight in loaded.model.named_parameters()}
        changes = [(weights[name] != old)[old != 0] for name, old in dense.items() if "layers" in name]
        moved[chosen] = float(torch.cat(changes).float().mean())
        pruned = sum(int((weights[name][mask] != 0).sum()) for name, mask in loaded.masks.items())
        assert loaded.masks
        assert pruned == 0
        return found

    for stage in (("download", "model"), ("download", "text"), ("download", "reviews"), ("prune",), ("recover",)):
        assert run_stage(*stage).status == 0
    monkeypatch.setattr("stages.lib.evaluation.finetuning.features", measured)
    for chosen in ("float32", dtype):
        changes = {"classify.mode": "all", "classify.learning_rate": 2e-5, "compute.dtype": chosen}
        write_params(project, changed_params(changes))
        finished = run_stage("classify", "pruned")
        assert finished.status == 0, finished.err
    assert moved["float32"] > 0.5
    assert moved[dtype] == pytest.approx(moved["float32"], rel=0.05)
