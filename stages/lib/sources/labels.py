"""Labels of reviews: the names of their classes, or the classes' numbers."""

import math
import re
from collections.abc import Sequence
from typing import Any

from stages.lib.files.errors import UserError


def read_labels(labels: Sequence[tuple[str, Any]], classes: Sequence[str]) -> list[int]:
    """The number of each label's class, from 0. A label comes with its place for an error line.

    All labels are read alike: as names if each is a class's name, otherwise as numbers. Raises UserError if some
    are neither.
    """
    listed, numbered = f"the classes {', '.join(classes)}", f"0 to {len(classes) - 1}"
    readings: dict[str, dict[str | None, int]] = {
        listed: {_name(name): number for number, name in enumerate(classes)},
        numbered: {"false": 0, "true": 1, **{str(number): number for number in range(len(classes))}},
    }
    outside = []
    for values, reading in readings.items():
        found = [reading.get(_name(label), -1) for _, label in labels]
        if -1 not in found:
            return found
        outside.append((found.index(-1), values))
    (other, other_values), (first, values) = sorted(outside)  # the reading that gets further is the likelier one
    (place, label), (other_place, other_label) = labels[first], labels[other]
    if place == other_place:
        problem = f"{place}: label {label!r} is outside {listed} (or {numbered})"
    else:
        problem = (
            f"{place}: label {label!r} is outside {values}, and {other_place}: label {other_label!r} is outside "
            f"{other_values}"
        )
    raise UserError(f"{problem}; correct the row, or reviews.classes in params.yaml")


def _name(label: Any) -> str | None:
    """A label as text, in which 1, 1.0 and "1" are the same, and so are true and "True"; None if it is missing."""
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return None
    text = re.sub(r"^(-?[0-9]+)\.0+$", r"\1", str(label))
    return text.lower() if text.lower() in ("true", "false") else text
