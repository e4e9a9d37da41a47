"""ROUGE in several languages, by hand, and of ASCII text as rouge_score alone has it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from stages.lib.evaluation.rouge import KINDS, Rouge

ASCII = st.text(st.characters(max_codepoint=127))
DEFAULT = rouge_scorer.RougeScorer(KINDS)


def rouge(prediction: str, reference: str) -> dict[str, float]:
    metric = Rouge(keep_in_memory=True)
    found = metric.compute(predictions=[prediction], references=[reference])
    return {kind: scores[0] for kind, scores in found.items()}


@given(ASCII, ASCII)
def test_rouge_of_ascii_text_is_that_of_rouge_score(prediction: str, reference: str) -> None:
    expected = DEFAULT.score(reference, prediction)
    scores = Rouge()._compute(predictions=[prediction], references=[reference])
    assert scores == {kind: [expected[kind].fmeasure] for kind in KINDS}


@pytest.mark.parametrize(
    "text",
    [
        "यह हिन्दी का एक वाक्य है।",
        "我爱北京天安门。",
        "Мама мыла раму.",
        "ذهب الولد إلى المدرسة",
        "東京へ行きます",
        "ฉันรักเธอ",
    ],
)
def test_a_text_in_any_script_is_like_itself(text: str) -> None:
    assert rouge(text, text) == dict.fromkeys(KINDS, 1.0)


def f(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        # Hindi: 3 of 4 words (लड़का, पढ़ता, है) of each, in order; of 3 pairs of words one is shared, पढ़ता है.
        ("लड़का किताब पढ़ता है", "लड़का अख़बार पढ़ता है।", (3 / 4, 1 / 3, 3 / 4)),
        # Chinese, by characters: 我 爱 北 京 against 我 住 在 北 京, with 我 北 京 and the pair 北京 in common.
        ("我爱北京。", "我住在北京", (f(3 / 4, 3 / 5), f(1 / 3, 1 / 4), f(3 / 4, 3 / 5))),
        # Russian: МАМА and раму of 3 and 3 words, without case; no pair.
        ("МАМА мыла раму", "мама моет раму", (2 / 3, 0, 2 / 3)),
        # Arabic: all 3 words are among the reference's 4, and one of 2 pairs among its 3.
        ("ذهب إلى المدرسة", "ذهب الولد إلى المدرسة", (f(1, 3 / 4), f(1 / 2, 1 / 3), f(1, 3 / 4))),
        # German: only uns is shared, since über is not ber.
        ("Über uns", "ber uns", (1 / 2, 0, 1 / 2)),
    ],
    ids=["Hindi", "Chinese", "Russian", "Arabic", "German"],
)
def test_rouge_by_hand(prediction: str, reference: str, expected: tuple[float, float, float]) -> None:
    assert list(rouge(prediction, reference).values()) == pytest.approx(expected)
