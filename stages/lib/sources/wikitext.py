"""Articles of WikiText, whose data sets have a row for each line.

Merity, S. et al. (2017). Pointer Sentinel Mixture Models. Fifth International Conference on Learning Representations.
"""

import re
from collections.abc import Sequence

from stages.lib.files.errors import UserError
from stages.lib.files.rows import SEPARATOR

_TITLE = re.compile(r"= (?!= ).+(?<! =) =")
"""The title of an article, without white space around it; section headings have more signs."""


def articles(lines: Sequence[str]) -> list[str]:
    """The lines of each article, joined by `SEPARATOR`; joined in turn, they are the joined lines.

    A title has an empty line before and after it: a line of prose may look like one. Raises UserError if there is no
    title.
    """
    blank = [True, *(not line.strip() for line in lines), True]
    begins = [
        number
        for number, line in enumerate(lines)
        if _TITLE.fullmatch(line.strip()) and blank[number] and blank[number + 2]
    ]
    if not begins:
        raise UserError("text: has no line like ' = Title = ', which begins an article of WikiText; use format: table")
    ends = [*begins[1:], len(lines)]
    begins[0] = 0  # with the empty line before the first title
    return [SEPARATOR.join(lines[begin:end]) for begin, end in zip(begins, ends, strict=True)]
