"""The ICWSM 2014 data of Hutto & Gilbert: sentences with mean human ratings, tab-separated.

Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis
of Social Media Text. Eighth International Conference on Weblogs and Social Media.
"""

from collections.abc import Iterator
from pathlib import Path

from stages.lib.files.errors import UserError
from stages.lib.files.rows import Row

CLEAR_RATING = 0.5
"""A review sentence is used if its rating, from -4 to 4, is at least this far from neutral."""


def editorials(path: Path) -> dict[str, str]:
    """Each article's text by its id. A sentence's id is `article_sentence`."""
    sentences: dict[str, list[str]] = {}
    for identifier, _, text in _lines(path):
        sentences.setdefault(identifier.split("_")[0], []).append(text)
    return {article: " ".join(parts) for article, parts in sentences.items()}


def reviews(path: Path) -> list[Row]:
    """The sentences with a clear rating, as rows of (document, text, label: 0 negative or 1 positive)."""
    return [
        {"document": identifier, "text": text, "label": int(rating > 0)}
        for identifier, rating, text in _lines(path)
        if abs(rating) >= CLEAR_RATING
    ]


def _lines(path: Path) -> Iterator[tuple[str, float, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        fields = line.split("\t")
        try:
            identifier, rating, text = fields
            yield identifier, float(rating), text.strip()
        except ValueError:
            raise UserError(
                f"{path.name}, line {number}: not id, rating and text separated by tabs; check format in params.yaml"
            ) from None
