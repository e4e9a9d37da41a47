"""The picture of score and distance: every model is named, also those whose points lie on each other."""

import math
import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stages.lib.figures.comparison import Change, Comparison
from stages.lib.figures.definitions import FIGURES, Estimate
from stages.lib.figures.statistics import PValue
from stages.lib.reporting.pictures import draw_distance

FIGURE = {figure.key: figure for figure in FIGURES}
POINTS = {
    "pruned": (1.5, 0.4),
    **{f"merged_{number}": (1e6 * (1 + number / 100), 12.0) for number in range(6)},
    "unpruned": (1.0, 0.0),  # its KL divergence has no logarithm
    "compressed_4": (math.inf, 700.0),
}
"""Each model's perplexity as a multiple of the original's, and its KL divergence."""


@pytest.mark.parametrize("narrow", [False, True])
def test_names_do_not_overlap(tmp_path: Path, narrow: bool) -> None:
    p = PValue(1.0)
    comparisons = [
        Comparison(
            FIGURE[key],
            {model: Estimate(point[number], None) for model, point in POINTS.items()} | without_distance,
            {(model, "original"): Change(point[0], None, p, p) for model, point in POINTS.items()},
            3,
            "3 items",
        )
        for number, (key, without_distance) in enumerate(
            [("perplexity", {"other_tokenizer": Estimate(30.0, None)}), ("kl_divergence", {})]
        )
    ]
    path = tmp_path / "distance.svg"
    draw_distance(*comparisons, path, narrow)
    svg = path.read_text()
    _, _, width, height = map(float, ElementTree.fromstring(svg).attrib["viewBox"].split())
    found = re.findall(r"<!-- (\w+) -->.*?translate\(([\d.]+) ([\d.]+)\)", svg, re.DOTALL)
    places = {name: (float(x), float(y)) for name, x, y in found if name in POINTS}
    assert places.keys() == POINTS.keys()
    assert "other_tokenizer" not in svg
    heights = sorted(y for _, y in places.values())
    assert min(below - above for above, below in pairwise(heights)) > 11  # of 9 points
    assert 0 < heights[0] < heights[-1] < height
    assert all(0 < x < width for x, _ in places.values())
    by_ratio = sorted(POINTS, key=lambda model: POINTS[model][0])
    assert sorted(places, key=lambda model: -places[model][1]) == by_ratio
