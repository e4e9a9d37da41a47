"""The rules for special tokens: those that a tokenizer puts before a text come first in every window and are never
scored; those that it puts after a text are nowhere. Classification and summaries have the same rules in their tests.

lm-eval's rolling log-likelihood is the witness, in the slow set.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CPU, ROOT, framing, load, prose
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from recovering import recover_settings
from torch.distributions import Categorical, kl_divergence
from torch.nn import functional
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from stages.lib.evaluation.perplexity import score, score_text
from stages.lib.files.errors import UserError
from stages.lib.files.rows import SEPARATOR
from stages.lib.inference.calibration import calibration_windows
from stages.lib.inference.likelihood import tokenize, windows
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import first_tokens
from stages.lib.plumbing.params import Perplexity
from stages.lib.recovery.training import train, training_windows

KINDS: dict[str, tuple[list[str], list[str]]] = {
    "none": ([], []),
    "first": (["<s>"], []),
    "last": ([], ["</s>"]),
    "both": (["<s>"], ["</s>"]),
    "two first": (["[gMASK]", "<sop>"], []),
}
"""The special tokens that a tokenizer puts before each text, and after it."""

DOCUMENTS = [prose(60, 1), prose(5, 2), "🦜 naïve — 東京\n", prose(90, 3)]

kinds = pytest.mark.parametrize("kind", list(KINDS))


@pytest.fixture(scope="module")
def models(tiny_folders: dict[str, Path]) -> dict[str, Loaded]:
    """A model with each kind of tokenizer."""
    plain = load(tiny_folders["llama"], ROOT / "data" / "original", CPU)
    return {
        kind: replace(plain, tokenizer=framing(plain.tokenizer, before, after))
        for kind, (before, after) in KINDS.items()
    }


@pytest.fixture(scope="module")
def text(models: dict[str, Loaded]) -> list[int]:
    """The documents' own tokens."""
    ids: list[int] = models["none"].tokenizer(SEPARATOR.join(DOCUMENTS))["input_ids"]
    return ids


def before(loaded: Loaded, kind: str) -> list[int]:
    ids: list[int] = loaded.tokenizer.convert_tokens_to_ids(KINDS[kind][0])
    return ids


def windowing(context: int, stride: int) -> Perplexity:
    return Perplexity(context=context, stride=stride, batch_size=1)


@kinds
def test_the_first_tokens_are_those_of_the_tokenizer(models: dict[str, Loaded], tmp_path: Path, kind: str) -> None:
    tokenizer = models[kind].tokenizer
    assert first_tokens(tokenizer) == before(models[kind], kind)
    tokenizer.save_pretrained(tmp_path)
    assert first_tokens(AutoTokenizer.from_pretrained(tmp_path)) == before(models[kind], kind)


@kinds
def test_the_tokens_of_a_text_are_its_own(models: dict[str, Loaded], text: list[int], kind: str) -> None:
    found, plain = (tokenize(models[name].tokenizer, DOCUMENTS) for name in (kind, "none"))
    assert found.tokens.tolist() == text
    assert found.byte_counts.tolist() == plain.byte_counts.tolist()
    assert found.byte_counts.sum() == len(SEPARATOR.join(DOCUMENTS).encode())
    assert found.document.tolist() == plain.document.tolist()
    assert found.first.tolist() == found.head(7).first.tolist() == before(models[kind], kind)
    assert found.head(7).tokens.tolist() == text[:7]


# What is read.


def read_by(loaded: Loaded, run: Callable[[], Any]) -> list[list[int]]:
    """The tokens of each pass that the model makes while a function runs."""
    seen: list[list[int]] = []
    embedding = loaded.model.get_input_embeddings()
    with embedding.register_forward_pre_hook(lambda module, given: seen.extend(given[0].tolist())):
        run()
    return seen


@kinds
@pytest.mark.parametrize("stride", [8, 32])
def test_windows_of_perplexity(models: dict[str, Loaded], text: list[int], kind: str, stride: int) -> None:
    loaded, first = models[kind], before(models[kind], kind)
    read = read_by(loaded, lambda: score(loaded, DOCUMENTS, windowing(32, stride)))
    assert len(read) > 4
    for window in read:  # the last token of a window is predicted, not read
        assert window[: len(first)] == first
        assert len(window) <= 31
        assert max(window[len(first) :]) <= max(text)  # special tokens have the highest ids
    assert all(len(window) == 31 for window in read[:-1])


@kinds
def test_windows_of_calibration(models: dict[str, Loaded], text: list[int], kind: str) -> None:
    loaded, first = models[kind], before(models[kind], kind)
    found = [window[0].tolist() for window in calibration_windows(loaded, DOCUMENTS, 140, "prune.calibration_tokens")]
    assert [len(window) for window in found] == [128, 12 + 2 * len(first)]
    assert all(window[: len(first)] == first for window in found)
    own = models["none"].tokenizer("".join(document + SEPARATOR for document in DOCUMENTS))["input_ids"]
    assert [token for window in found for token in window[len(first) :]] == own[:140]


training = partial(recover_settings, steps=3, objective="lm")


@kinds
def test_windows_of_training(models: dict[str, Loaded], kind: str) -> None:
    loaded, first = models[kind], before(models[kind], kind)
    found = [window.tolist() for window in training_windows(loaded, DOCUMENTS[:1], training(steps=9), 0)]
    assert len(found) == 9
    assert {len(window) for window in found} == {32}
    assert all(window[: len(first)] == first for window in found)
    own = loaded.tokenizer(DOCUMENTS[0] + SEPARATOR, add_special_tokens=False)["input_ids"]
    room = 32 - len(first)
    pieces = [own[begin : begin + room] for begin in range(0, len(own) - room + 1, room)]
    assert {tuple(window[len(first) :]) for window in found} == set(map(tuple, pieces))


# What is scored.


@given(st.integers(1, 200), st.integers(1, 3), st.integers(1, 40), st.data())
def test_behind_special_tokens_every_token_is_scored_once(
    tokens: int, first: int, room: int, data: st.DataObject
) -> None:
    seen = np.zeros(tokens, dtype=int)
    for window in windows(tokens, first + room, data.draw(st.integers(1, first + room)), first):
        assert window.begin <= window.scored < window.end <= window.begin + room
        seen[window.scored : window.end] += 1
    assert (seen == 1).all()


def naive_losses(loaded: Loaded, first: list[int], text: list[int], context: int, stride: int) -> dict[int, float]:
    """The loss of each scored token of a text, by its position, from the logits of one window after another."""
    losses: dict[int, float] = {}
    begin, room = 0, context - len(first)
    while True:
        window = first + text[begin : begin + room]
        with torch.no_grad():
            predicted = loaded.model(torch.tensor([window])).logits[0].log_softmax(dim=-1)
        for position in range(max(1, len(first)), len(window)):
            losses.setdefault(begin + position - len(first), -predicted[position - 1, window[position]].item())
        if begin + room >= len(text):
            return losses
        begin += min(stride, room)


@kinds
@budget(max_examples=15, deadline=None)
@given(st.integers(3, 40), st.data())
def test_losses_are_those_of_a_plain_loop(
    models: dict[str, Loaded], text: list[int], kind: str, context: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, context))
    loaded = models[kind]
    tokens, settings = tokenize(loaded.tokenizer, DOCUMENTS).head(60), windowing(context, stride)
    losses = score_text(loaded, tokens, settings)["nll"]
    scored = [token for window in tokens.windows(settings) for token in range(window.scored, window.end)]
    expected = naive_losses(loaded, before(loaded, kind), text[:60], context, stride)
    assert scored == sorted(expected)
    np.testing.assert_allclose(losses, [expected[token] for token in sorted(expected)], rtol=1e-4, atol=1e-5)


@kinds
def test_how_many_tokens_and_bytes_are_scored(models: dict[str, Loaded], text: list[int], kind: str) -> None:
    """All behind a special token; without one, all but the first of each window."""
    table = score(models[kind], DOCUMENTS, windowing(32, 32))
    windows_read = -(-len(text) // (32 - len(KINDS[kind][0])))
    assert len(table) == len(text) - (0 if KINDS[kind][0] else windows_read)
    assert (table["bytes"].sum() == len(SEPARATOR.join(DOCUMENTS).encode())) == bool(KINDS[kind][0])


@kinds
@pytest.mark.parametrize("objective", ["lm", "distill"])
def test_the_loss_of_training_is_that_of_the_text(
    tiny_folders: dict[str, Path], models: dict[str, Loaded], tmp_path: Path, kind: str, objective: str
) -> None:
    student = load(tiny_folders["llama"], ROOT / "data" / "original", CPU)
    student = replace(student, tokenizer=models[kind].tokenizer)
    with torch.no_grad():  # so that there is something to learn from the teacher
        student.model.get_output_embeddings().weight *= 0.5
    teacher, first = models[kind], len(KINDS[kind][0])
    chosen = training(steps=1, objective=objective)
    (window,) = training_windows(student, DOCUMENTS, chosen, 0)
    losses = []
    for position in range(max(1, first), len(window)):
        with torch.no_grad():
            ours, theirs = (model.model(window[None, :position]).logits[0, -1] for model in (student, teacher))
        losses.append(
            functional.cross_entropy(ours, window[position])
            if objective == "lm"
            else kl_divergence(Categorical(logits=theirs), Categorical(logits=ours))
        )
    (step,) = train(student, teacher if objective == "distill" else None, [window], chosen, tmp_path)
    assert step["loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


# Too little room.


def test_windows_without_room_for_the_text_are_refused(models: dict[str, Loaded]) -> None:
    loaded = models["two first"]
    with pytest.raises(UserError, match=r"perplexity\.context is 2, and 2 of them are for .*, so none is left"):
        score(loaded, DOCUMENTS, windowing(2, 1))
    with pytest.raises(UserError, match=r"recover\.tokens_per_step is 2, and 2 of them .*; raise it in params"):
        training_windows(loaded, DOCUMENTS, training(tokens_per_step=2), 0)


def test_a_text_shorter_than_a_window_is_refused(models: dict[str, Loaded], text: list[int]) -> None:
    whole = tokenize(models["first"].tokenizer, DOCUMENTS)
    assert len(score_text(models["first"], whole.head(63), windowing(64, 64))) == 63
    with pytest.raises(UserError, match=r"has 62 tokens, and a window of 64 takes 63"):
        score_text(models["first"], whole.head(62), windowing(64, 64))


# lm-eval.


def rolling(loaded: Loaded, documents: Sequence[str], max_length: int, prefix: int | None = None) -> list[float]:
    """lm-eval's log-likelihood of each document, in windows of `max_length` tokens.

    lm-eval puts one token before a document: `prefix`, or else the tokenizer's BOS, or its EOS if it has none. By
    default it also scores the special tokens that the tokenizer adds, so that BOS is read twice and scored once, and
    EOS is scored; with `add_bos_token=False` it scores the document's own tokens only, as we do.
    """
    pytest.importorskip("lm_eval", reason="needs pip install -r benchmarks/requirements.txt")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    peer = HFLM(
        loaded.model,
        tokenizer=loaded.tokenizer,
        max_length=max_length,
        batch_size=1,
        add_bos_token=False,
        prefix_token_id=prefix,
    )
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(document,), idx=number)
        for number, document in enumerate(documents)
    ]
    found: list[float] = peer.loglikelihood_rolling(requests, disable_tqdm=True)
    return found


def log_likelihood(loaded: Loaded, document: str, context: int, stride: int) -> float:
    return -float(score(loaded, [document], windowing(context, stride))["nll"].sum())


def pieces(tokenizer: PreTrainedTokenizerFast, document: str, bounds: Sequence[tuple[int, int]]) -> list[str]:
    """The parts of a document between some of its tokens; each part has the same tokens alone as in the document."""
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    found = [document[offsets[begin][0] : offsets[end - 1][1]] for begin, end in bounds]
    for part, (begin, end) in zip(found, bounds, strict=True):
        assert tokenizer(part, add_special_tokens=False)["input_ids"] == ids[begin:end]
    return found


WORDS = " ".join(["the cat sat on a mat while rain fell dogs ran to eat"] * 9)
"""A document whose tokens are words, or parts that stay the same when the text is cut between them."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["first", "both"])
def test_lm_eval_agrees_on_one_window_behind_bos(models: dict[str, Loaded], kind: str) -> None:
    loaded = models[kind]
    tokens = len(tokenize(loaded.tokenizer, [WORDS]).tokens)
    assert 64 < tokens < 128
    (expected,) = rolling(loaded, [WORDS], tokens)
    assert log_likelihood(loaded, WORDS, tokens + 1, tokens + 1) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["first", "both"])
@pytest.mark.parametrize("stride", [5, 13, 20])
def test_lm_eval_agrees_on_several_windows_behind_bos(models: dict[str, Loaded], kind: str, stride: int) -> None:
    """lm-eval puts BOS before a document's first window only, so each of our windows is a document for it.

    Of what a window scores, the likelihood is that of the whole window less that of the part that was scored before.
    """
    loaded = models[kind]
    tokens = len(tokenize(loaded.tokenizer, [WORDS]).tokens)
    plan = [(begin, min(begin + 20, tokens)) for begin in range(0, tokens - 20 + stride, stride)]
    overlaps = [(begin, end) for (begin, _), (_, end) in zip(plan[1:], plan, strict=False) if begin < end]
    whole = rolling(loaded, pieces(loaded.tokenizer, WORDS, plan), 21)
    again = rolling(loaded, pieces(loaded.tokenizer, WORDS, overlaps), 21)
    assert log_likelihood(loaded, WORDS, 21, stride) == pytest.approx(sum(whole) - sum(again), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["none", "last"])
@pytest.mark.parametrize("count", [1, 3])
def test_lm_eval_agrees_without_bos(models: dict[str, Loaded], kind: str, count: int) -> None:
    """lm-eval always puts a token before a document, here the document's own first one, which neither side scores.

    It moves windows of 24 inputs by 24, and reads the last token of a window again as the first of the next: our
    windows of 25 tokens, inputs and last target, at a stride of 24. It gives a shorter last window more context, so
    the document is a whole number of windows.
    """
    loaded = models[kind]
    (document,) = pieces(loaded.tokenizer, WORDS, [(0, 1 + 24 * count)])
    first, *others = tokenize(loaded.tokenizer, [document]).tokens.tolist()
    (rest,) = pieces(loaded.tokenizer, document, [(1, 1 + len(others))])
    (expected,) = rolling(loaded, [rest], 24, prefix=first)
    assert log_likelihood(loaded, document, 25, 24) == pytest.approx(expected, abs=1e-4)
