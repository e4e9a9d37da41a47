"""Perplexity against an independent loop over transformers' own loss, and the invariants of windows."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CPU, enclosing, load, prose
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedTokenizerFast

from stages.lib.evaluation.perplexity import score
from stages.lib.figures.definitions import FIGURES, estimates, items
from stages.lib.files.errors import UserError
from stages.lib.inference import likelihood
from stages.lib.inference.device import Device
from stages.lib.inference.likelihood import SEPARATOR, tokenize, windows
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Perplexity

DOCUMENTS = [prose(200, 1), prose(150, 2), "🦜 naïve — 東京\n", prose(90, 3)]


@pytest.fixture
def loaded(tiny_folder: Path, original: Path) -> Loaded:
    return load(tiny_folder, original, CPU)


def settings(context: int, stride: int, batch_size: int = 1) -> Perplexity:
    return Perplexity(context=context, stride=stride, batch_size=batch_size)


def independent_perplexity(loaded: Loaded, text: str, context: int, stride: int) -> tuple[float, int]:
    """The loop of the Hugging Face guide, weighted by tokens: ignored labels are -100."""
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    total, count, reached = 0.0, 0, 0
    for begin in range(0, ids.shape[1], stride):
        end = min(begin + context, ids.shape[1])
        inputs = ids[:, begin:end]
        labels = inputs.clone()
        labels[:, : inputs.shape[1] - (end - reached)] = -100
        scored = int((labels[:, 1:] != -100).sum())
        if scored:
            with torch.no_grad():
                total += loaded.model(inputs, labels=labels).loss.item() * scored
            count += scored
        reached = end
        if end == ids.shape[1]:
            break
    return math.exp(total / count), count


FIGURE = {figure.key: figure for figure in FIGURES}


def perplexity_of(scores: pd.DataFrame) -> float:
    return estimates(FIGURE["perplexity"], [items("perplexity", scores)], 100, 0)[0].value


@pytest.mark.parametrize(("context", "stride"), [(64, 64), (64, 16), (100, 37), (128, 1), (2, 1), (2, 2)])
def test_equals_an_independent_loop(loaded: Loaded, context: int, stride: int) -> None:
    scores = score(loaded, DOCUMENTS[:1], settings(context, stride))
    expected, count = independent_perplexity(loaded, DOCUMENTS[0], context, stride)
    assert len(scores) == count
    assert perplexity_of(scores) == pytest.approx(expected, rel=1e-5)


def test_several_documents_are_one_text(loaded: Loaded) -> None:
    scores = score(loaded, DOCUMENTS, settings(128, 64))
    expected, count = independent_perplexity(loaded, SEPARATOR.join(DOCUMENTS), 128, 64)
    assert len(scores) == count
    assert perplexity_of(scores) == pytest.approx(expected, rel=1e-5)
    assert list(scores["document"].unique()) == [0, 1, 2, 3]


def test_the_token_counts_of_documents_are_their_own(loaded: Loaded) -> None:
    text = tokenize(loaded.tokenizer, DOCUMENTS)
    for number, document in enumerate(DOCUMENTS):
        # A separator's tokens end in the document before it, so a token or two come on top.
        own = len(loaded.tokenizer(document)["input_ids"])
        assert own <= np.count_nonzero(text.document == number) <= own + 2


@pytest.mark.parametrize("trim_offsets", [True, False])
@pytest.mark.parametrize("text", ["a", "the cat ", "\n\n the\tcat\n\n", "🦜🦜 naïve — 東京", " ", prose(300)])
def test_bytes_of_tokens_add_up_to_the_text(tokenizer: PreTrainedTokenizerFast, text: str, trim_offsets: bool) -> None:
    from tokenizers import processors

    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.ByteLevel(trim_offsets=trim_offsets)
    counted = tokenize(PreTrainedTokenizerFast(tokenizer_object=backend), [text])
    assert counted.byte_counts.sum() == len(text.encode())
    assert (counted.byte_counts >= 0).all()


def test_a_special_token_that_the_text_itself_has_is_scored(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenize(enclosing(tokenizer), ["the cat</s>"])
    assert text.tokens[-1] == enclosing(tokenizer).eos_token_id
    assert text.byte_counts.sum() == len("the cat</s>")


def test_bits_per_byte_is_the_likelihood_of_the_scored_bytes(loaded: Loaded) -> None:
    scores = score(loaded, DOCUMENTS[:1], settings(128, 64))
    ids = loaded.tokenizer(DOCUMENTS[0])["input_ids"]
    unscored = len(loaded.tokenizer.decode(ids[:1]).encode())
    bits = math.log2(perplexity_of(scores)) * len(scores)
    assert estimates(FIGURE["bits_per_byte"], [items("perplexity", scores)], 100, 0)[0].value == pytest.approx(
        bits / (len(DOCUMENTS[0].encode()) - unscored), rel=1e-9
    )


def test_batches_change_nothing(loaded: Loaded) -> None:
    alone = score(loaded, DOCUMENTS, settings(64, 32))
    batched = score(loaded, DOCUMENTS, settings(64, 32, batch_size=3))
    np.testing.assert_allclose(alone["nll"], batched["nll"], rtol=1e-5)


def test_padding_changes_nothing(loaded: Loaded) -> None:
    sequences = [np.array(loaded.tokenizer(prose(words, words))["input_ids"]) for words in (5, 40, 3, 20, 11)]
    firsts = [1, 7, 2, 1, 3]
    batched = likelihood.losses_within(loaded, sequences, firsts, batch_size=3)
    for sequence, first, losses in zip(sequences, firsts, batched, strict=True):
        (alone,) = likelihood.losses_within(loaded, [sequence], [first], batch_size=1)
        assert len(losses) == len(sequence) - first
        np.testing.assert_allclose(losses, alone, rtol=1e-4, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Records how large the tensors are that operations give."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **kwargs or {})
        if isinstance(output, torch.Tensor):
            self.numel = max(self.numel, output.numel())
        return output


@pytest.mark.parametrize("at_once", [1, 1000, 5000, 1 << 21])
def test_logits_of_a_whole_window_are_never_held(loaded: Loaded, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(likelihood, "LOGITS_AT_ONCE", at_once)
    states, wanted = torch.randn(100, 32), torch.randint(0, 320, (100,))
    with torch.inference_mode(), LargestTensor() as largest:
        losses = likelihood.predictions(loaded, likelihood.Scored(0, wanted, states))["nll"]
        assert largest.numel <= max(at_once, loaded.model.lm_head.weight.numel())
        whole = torch.nn.functional.cross_entropy(loaded.model.lm_head(states), wanted, reduction="none")
    np.testing.assert_allclose(losses, whole.numpy(), rtol=1e-5, atol=1e-5)


@given(st.integers(2, 300), st.integers(2, 50), st.data())
def test_every_token_is_scored_once(tokens: int, context: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, context))
    seen = np.zeros(tokens, dtype=int)
    for window in windows(tokens, context, stride):
        assert window.begin < window.scored <= window.end <= tokens
        assert window.end - window.begin <= context
        seen[window.scored : window.end] += 1
    assert seen.max() <= 1
    # Only tokens that nothing precedes in their window are left out: the first of all, and with
    # windows that do not overlap the first of each.
    skipped = set(np.flatnonzero(seen == 0))
    assert skipped == ({0} if stride < context else set(range(0, tokens, stride)))


def test_a_text_shorter_than_a_window_is_refused(loaded: Loaded) -> None:
    with pytest.raises(UserError, match=r"has 1 tokens, and a window of 64 takes 64; .*params\.yaml"):
        score(loaded, ["a"], settings(64, 64))


def test_a_window_longer_than_the_model_takes_is_refused(loaded: Loaded) -> None:
    with pytest.raises(UserError, match=r"perplexity\.context is 129, the model takes 128"):
        score(loaded, DOCUMENTS, settings(129, 64))


def test_the_pruned_model_is_scored_on_the_same_tokens(loaded: Loaded) -> None:
    before = score(loaded, DOCUMENTS, settings(64, 64))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.mul_(0.5)
    after = score(loaded, DOCUMENTS, settings(64, 64))
    assert before[["document", "window", "end", "bytes"]].equals(after[["document", "window", "end", "bytes"]])
    assert not np.allclose(before["nll"], after["nll"])


def overflowing(folder: Path, original: Path, dtype: torch.dtype) -> Loaded:
    """A model in which the numbers at one token exceed float16, and no others do."""
    loaded = load(folder, original, Device(torch.device("cpu"), dtype))
    token = loaded.tokenizer("café")["input_ids"][-1]
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[token] *= 4e5
    return loaded


def test_losses_that_are_not_finite_end_the_scoring(tiny_folder: Path, original: Path) -> None:
    """Left out, they would make another text of it, and another one again of a pruned model."""
    says = r"the losses of window \d+ are not finite in float16; set compute\.dtype to float32 in params\.yaml"
    with pytest.raises(UserError, match=says):
        score(overflowing(tiny_folder, original, torch.float16), DOCUMENTS, settings(64, 64))
    scores = score(overflowing(tiny_folder, original, torch.float32), DOCUMENTS, settings(64, 64))
    assert np.isfinite(scores["nll"]).all()


def test_the_window_is_named(loaded: Loaded) -> None:
    text = tokenize(loaded.tokenizer, DOCUMENTS)
    with torch.no_grad():
        loaded.model.get_input_embeddings().weight[text.tokens[200]] = torch.nan
    first = int(np.flatnonzero(text.tokens == text.tokens[200])[0]) // 64
    with pytest.raises(UserError, match=rf"the losses of window {first} are not finite .*repair the model"):
        score(loaded, DOCUMENTS, settings(64, 64))


def test_a_large_loss_is_a_loss(loaded: Loaded) -> None:
    """A model that is destroyed, but computes, is scored."""
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight *= 1e5
    scores = score(loaded, DOCUMENTS, settings(64, 64))
    assert scores["nll"].mean() > 709  # whose exponential is no float64


def test_the_rows_are_the_scored_tokens(loaded: Loaded) -> None:
    text = tokenize(loaded.tokenizer, DOCUMENTS)
    scores = score(loaded, DOCUMENTS, settings(64, 64))
    scored = np.arange(len(text.tokens)) % 64 != 0
    whole, ends = SEPARATOR.join(DOCUMENTS).encode(), np.cumsum(text.byte_counts)
    assert scores["end"].tolist() == ends[scored].tolist()
    assert scores["bytes"].tolist() == text.byte_counts[scored].tolist()
    assert scores["end"].iloc[-1] == len(whole)
    assert (scores["nll"] > 0).all()
