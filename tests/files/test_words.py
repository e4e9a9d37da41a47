"""Words: those of rouge_score in ASCII text, and those of a reader in other scripts."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import tokenize

from stages.lib.files.words import count_words, words

ASCII = st.text(st.characters(max_codepoint=127))


@given(ASCII)
def test_words_of_ascii_text_are_those_of_rouge_score(text: str) -> None:
    assert words(text) == tokenize.tokenize(text, None)


@given(st.lists(st.sampled_from([*string.ascii_letters, "é", "ß", "ह", "ि", "ж", "ع", "é", ".", "—", "1", " ", "\n"])))
def test_words_are_counted_between_white_space_where_a_script_has_spaces(letters: list[str]) -> None:
    text = "".join(letters)
    assert count_words(text) == len(text.split())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Über uns", ["über", "uns"]),
        ("U\u0308ber", ["\u00fcber"]),  # composed or not, it is one word
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("Привет, мир!", ["привет", "мир"]),
        ("यह हिन्दी है।", ["यह", "हिन्दी", "है"]),  # vowel signs belong to their letters
        ("مُحَمَّد ١٢٣", ["مُحَمَّد", "١٢٣"]),
        ("我爱北京。", ["我", "爱", "北", "京"]),
        ("東京タワーへ", ["東", "京", "タ", "ワ", "ー", "へ"]),
        ("ที่นี่๒๕", ["ที่", "นี่", "๒๕"]),  # a consonant with its vowel and tone marks
        ("GPT模型v2", ["gpt", "模", "型", "v2"]),
        ("ＡＢＣ ﬁt", ["abc", "fit"]),
        ("won’t_x", ["won", "t", "x"]),
        ("می\u200cخواهم", ["میخواهم"]),  # a joiner inside a word
        ("❤️ 1️⃣", ["1"]),
    ],
)
def test_words_of_other_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_each_letter_counts_where_a_script_has_no_spaces() -> None:
    assert count_words("我爱北京。再见!") == 6
    assert count_words("GPT模型 is 好") == 5
