"""Words of a text in any script.

Most scripts put spaces or punctuation between words. Han, Kana and Bopomofo do not, nor do the scripts of Unicode's
line-breaking class SA, such as Thai, Lao, Khmer and Burmese: there, each letter with its marks is taken for a word.
"""

import unicodedata

import regex

_UNSPACED = r"[\p{L}&&[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Bopomofo}\p{Line_Break=SA}]]"
_MARK = r"\p{Mn}\p{Mc}"
_LETTER = regex.compile(rf"(?V1){_UNSPACED}")
_WORD = regex.compile(
    rf"(?V1){_UNSPACED}[{_MARK}]*|[[\p{{L}}\p{{N}}]--{_UNSPACED}][[\p{{L}}\p{{N}}{_MARK}]--{_UNSPACED}]*"
)
_INVISIBLE = regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200b]")  # a zero width space ends a word


def words(text: str) -> list[str]:
    """The words of a text: runs of letters, marks and digits, without case, in the normalization form NFKC.

    In ASCII text these are the runs of `[a-z0-9]` in the lowered text, the words of the package `rouge_score`.
    """
    found: list[str] = _WORD.findall(_INVISIBLE.sub("", unicodedata.normalize("NFKC", text).casefold()))
    return found


def count_words(text: str) -> int:
    """The number of words as an editor counts them: between white space, or letters where a script has no spaces."""
    return sum(len(words(part)) if _LETTER.search(part) else 1 for part in text.split())
