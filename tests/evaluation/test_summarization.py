"""Summaries: only what the model adds is scored, batches change nothing, ROUGE is rouge_score's."""

from pathlib import Path

import evaluate
import pytest
import torch
from conftest import CPU, ROOT, load, prose
from rouge_score import rouge_scorer

from stages.lib.evaluation.rouge import KINDS, Rouge
from stages.lib.evaluation.summarization import lead_sentence, prompts, summarize
from stages.lib.files.errors import UserError
from stages.lib.inference.loading import Loaded
from stages.lib.plumbing.params import Summarize

DOCUMENTS = [prose(words, words) for words in (12, 4, 30, 9)]


@pytest.fixture
def loaded(tiny_folder: Path, original: Path) -> Loaded:
    return load(tiny_folder, original, CPU)


def settings(**changes: object) -> Summarize:
    return Summarize.model_validate(
        {
            "examples": 4,
            "order": "first",
            "cue": "\n\nTL;DR:",
            "max_new_tokens": 10,
            "num_beams": 1,
            "no_repeat_ngram_size": 0,
            "batch_size": 1,
        }
        | changes
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
    assert summarize(loaded, DOCUMENTS, settings(batch_size=batch_size)) == expected


def test_long_documents_are_cut_at_their_end(loaded: Loaded) -> None:
    (tokens,) = prompts(loaded, [prose(500)], settings())
    cue = loaded.tokenizer("\n\nTL;DR:")["input_ids"]
    assert len(tokens) == 128 - 10
    assert tokens[-len(cue) :] == cue
    assert tokens[: -len(cue)] == loaded.tokenizer(prose(500))["input_ids"][: 118 - len(cue)]


def test_no_room_for_a_document_is_refused(loaded: Loaded) -> None:
    with pytest.raises(UserError, match="lower max_new_tokens"):
        summarize(loaded, DOCUMENTS, settings(max_new_tokens=127))


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
    assert summarize(loaded, DOCUMENTS, beams) == expected
    assert summarize(loaded, DOCUMENTS, settings()) != expected


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
    for number, (prediction, reference) in enumerate(PAIRS):
        expected = scorer.score(reference, prediction)
        for kind in KINDS:
            assert found[kind][number] == expected[kind].fmeasure


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
    ],
)
def test_lead_sentence(document: str, lead: str) -> None:
    assert lead_sentence(document) == lead
