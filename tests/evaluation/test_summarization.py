"""Summaries: only what the model adds is scored, batches change nothing, ROUGE is rouge_score's."""

import re
from pathlib import Path

import evaluate
import pytest
import torch
from conftest import CPU, ROOT, TINY_PARAMS, document_rows, load, prose
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from stages.lib.evaluation.rouge import KINDS, Rouge
from stages.lib.evaluation.summarization import lead_sentence, predict_summaries, summarize
from stages.lib.files.errors import UserError
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Summarize

DOCUMENTS = [prose(words, words) for words in (12, 4, 30, 9)]
ROWS = document_rows(DOCUMENTS)


@pytest.fixture
def loaded(tiny_folder: Path, original: Path) -> Loaded:
    return load(tiny_folder, original, CPU)


def settings(**changes: object) -> Summarize:
    return Summarize.model_validate(
        TINY_PARAMS["summarize"] | {"examples": 4, "order": "first", "max_new_tokens": 10, "batch_size": 1} | changes
    )


def greedy_by_hand(loaded: Loaded, document: str, cue: str, tokens: int) -> str:
    """The likeliest token, again and again, from plain forward passes."""
    ids = loaded.tokenizer(document + cue)["input_ids"]
    start = len(ids)
    with torch.no_grad():
        while len(ids) < start + tokens:
            likeliest = int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax())
            if likeliest == loaded.tokenizer.eos_token_id:
                break
            ids.append(likeliest)
    return str(loaded.tokenizer.decode(ids[start:])).strip()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_only_what_the_model_adds_is_returned(loaded: Loaded, batch_size: int) -> None:
    expected = [greedy_by_hand(loaded, document, "\n\nTL;DR:", 10) for document in DOCUMENTS]
    assert summarize(loaded, ROWS, settings(batch_size=batch_size)) == expected


def test_beams_and_ngrams_follow_the_settings(loaded: Loaded) -> None:
    expected = []
    for document in DOCUMENTS:
        inputs = loaded.tokenizer(document + "\n\nTL;DR:", return_tensors="pt")
        added = loaded.model.generate(
            **inputs, num_beams=3, no_repeat_ngram_size=1, max_new_tokens=10, do_sample=False, pad_token_id=0
        )
        ids = added[0, inputs["input_ids"].shape[1] :].tolist()
        expected.append(loaded.tokenizer.decode(ids, skip_special_tokens=True).strip())
    beams = settings(num_beams=3, no_repeat_ngram_size=1, batch_size=2)
    assert summarize(loaded, ROWS, beams) == expected
    assert summarize(loaded, ROWS, settings()) != expected


PAIRS = [
    ("The cat sat on the mat.", "A cat sat on a mat."),
    ("", "A cat."),
    ("dogs", "cats"),
    ("police killed the gunman", "police kill the gunman"),
    ("naïve café", "a naïve café"),
]


def test_rouge_is_that_of_rouge_score() -> None:
    predictions, references = (list(texts) for texts in zip(*PAIRS, strict=True))
    found = Rouge().compute(predictions=predictions, references=references)
    scorer = rouge_scorer.RougeScorer(KINDS)
    for number, (prediction, reference) in enumerate(PAIRS[:-1]):
        expected = scorer.score(reference, prediction)
        for kind in KINDS:
            assert found[kind][number] == expected[kind].fmeasure
    # 2 words of 2 and of 3, which the package takes for 3 and 4: na, ve and caf.
    assert found["rouge1"][-1] == pytest.approx(2 * 1 * (2 / 3) / (1 + 2 / 3))


def test_rouge_by_hand() -> None:
    # Lin 2004, section 3: 'police kill the gunman' shares 3 of 4 words, in order, with its reference.
    found = Rouge().compute(predictions=["police kill the gunman"], references=["police killed the gunman"])
    assert (found["rouge1"], found["rouge2"], found["rougeL"]) == ([0.75], [pytest.approx(1 / 3)], [0.75])


def test_rouge_is_a_module_that_evaluate_loads_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    metric = evaluate.load(str(ROOT / "stages" / "lib" / "evaluation" / "rouge.py"))
    assert metric.compute(predictions=["a cat"], references=["a cat"])["rougeL"] == [1.0]


@pytest.mark.parametrize(
    ("document", "lead"),
    [
        ("One. Two.", "One."),
        ('He said "Stop!" Then he left.', 'He said "Stop!"'),
        ("No end", "No end"),
        ("  Really?\n\nYes.", "Really?"),
        ("Version 3.1 is out. Get it.", "Version 3.1 is out."),
        ("He said “Stop!” Then he left.", "He said “Stop!”"),
        ("Well… Perhaps.", "Well…"),
        ("今天下雨。明天晴。", "今天下雨。"),
        ("他说：“好。”然后走了。", "他说：“好。”"),
        ("「本当？！」と聞いた。", "「本当？！」"),
        ("円周率は３．１４です。次。", "円周率は３．１４です。"),
        ("ﾃｽﾄです｡次｡", "ﾃｽﾄです｡"),
        ("लड़का पढ़ता है। लड़की लिखती है।", "लड़का पढ़ता है।"),
        ("هل ذهب الولد؟ نعم.", "هل ذهب الولد؟"),
        ("وہ گیا۔ وہ آیا۔", "وہ گیا۔"),
        ("မိုးရွာသည်။နေသာသည်။", "မိုးရွာသည်။"),
    ],
)
def test_lead_sentence(document: str, lead: str) -> None:
    assert lead_sentence(document) == lead


@given(st.text(st.characters(max_codepoint=127)))
def test_the_lead_of_ascii_text_ends_where_white_space_follows(text: str) -> None:
    found = re.match(r".*?[.!?][\"')\]]*(?=\s|$)", text.strip(), re.DOTALL)
    assert lead_sentence(text) == (found.group() if found else text.strip())


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_end_the_run(loaded: Loaded, beams: int, value: float) -> None:
    with torch.no_grad():
        loaded.model.get_output_embeddings().weight[7] = value
    with pytest.raises(UserError, match="the logits of the next token are not finite in float32; repair the model"):
        summarize(loaded, ROWS, settings(num_beams=beams, batch_size=4))


def test_tokens_that_generation_rules_out_are_no_fault(loaded: Loaded) -> None:
    """Their logits are minus infinity."""
    assert all(summarize(loaded, ROWS, settings(no_repeat_ngram_size=1)))


def silent(loaded: Loaded) -> Loaded:
    """The model, so changed that it ends every text at once."""
    end = loaded.tokenizer.eos_token_id
    loaded.model.get_output_embeddings().register_forward_hook(
        lambda _module, _inputs, logits: (
            torch.nn.functional.one_hot(torch.tensor(end), 320).expand(logits.shape).float()
        )
    )
    return loaded


def test_an_original_that_adds_nothing_is_refused(loaded: Loaded) -> None:
    with pytest.raises(UserError) as caught:
        predict_summaries(silent(loaded), ROWS, settings(), 0, may_be_empty=False)
    assert str(caught.value) == (
        "summaries: the model adds no text to any of 4 documents; change summarize.cue, or raise "
        "summarize.max_new_tokens in params.yaml"
    )


def test_a_compressed_model_may_add_nothing(loaded: Loaded) -> None:
    table = predict_summaries(silent(loaded), ROWS, settings(), 0, may_be_empty=True)
    assert table["summary"].tolist() == [""] * 4
    assert table["rougeL"].tolist() == [0] * 4
