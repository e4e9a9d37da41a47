"""What a summary's words say of it without a reference: whether there are any, and whether they repeat."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from stages.lib.files.words import words

GRAM = 4
OFTEN = 3
"""A summary repeats itself if GRAM words in a row occur OFTEN times, which may overlap."""


def degenerate(summaries: Sequence[str]) -> pd.DataFrame:
    """Which summaries have no word, which repeat themselves, and which do either.

    Columns of 0 and 1, a row per summary: empty, repeating, degenerate.
    """
    found = [words(summary) for summary in summaries]
    rows = pd.DataFrame({"empty": [not each for each in found], "repeating": [_repeats(each) for each in found]})
    return rows.assign(degenerate=rows["empty"] | rows["repeating"]).astype(float)


def _repeats(found: Sequence[str]) -> bool:
    grams = Counter(tuple(found[start : start + GRAM]) for start in range(len(found) - GRAM + 1))
    return max(grams.values(), default=0) >= OFTEN
