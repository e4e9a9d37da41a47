"""The report as one page: a self-contained HTML file that can be sent to anybody."""

import base64
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from stages.lib.corpora.rows import class_names, read_rows
from stages.lib.figures.comparison import Tables
from stages.lib.files.places import DOCUMENTS, REPORT, REVIEWS
from stages.lib.files.writing import new_file
from stages.lib.reporting.example_changes import flipped_reviews, summary_pairs
from stages.lib.reporting.study import Results
from stages.lib.reporting.templates import rendered
from stages.lib.reporting.wording import answer, frontier_rows, models_table, notes

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params


def render(
    results: Results,
    flips: pd.DataFrame,
    pairs: pd.DataFrame,
    pictures: Mapping[str, Path],
    settings: Mapping[str, str],
    times: Mapping[str, Mapping[str, float]],
) -> str:
    """The page as HTML, text from data escaped. Takes the report's SVGs by name, and the times by stage."""
    columns, models = models_table(results)
    methods, *sparsities = frontier_rows(results.frontier)
    return rendered(
        "page.html",
        answer=answer(results),
        columns=columns,
        models=models,
        notes=notes(results),
        absent=results.absent,
        methods=methods,
        sparsities=sparsities,
        pictures={name: base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()},
        by_size=_by_size(results),
        flips=flips.to_dict("records"),
        reviews_scored=results.by_key["accuracy"].n,
        pairs=pairs.to_dict("records"),
        settings=settings,
        machine=f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        times=times,
    )


def write_page(
    results: Results,
    tables: Tables,
    pictures: Mapping[str, Path],
    settings: Mapping[str, str],
    params: "Params",
    times: Path,
) -> None:
    """Write `index.html`, which has this machine's times, so neither Git nor DVC keeps it."""
    original, pruned = tables["original"], tables["pruned"]
    classes = class_names(params.reviews)
    flips = flipped_reviews(read_rows(REVIEWS), original["classify"], pruned["classify"], classes)
    pairs = summary_pairs(read_rows(DOCUMENTS), original["summarize"], pruned["summarize"])
    taken = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(times.glob("*.json"))}
    with new_file(REPORT / "index.html") as temporary:
        temporary.write_text(render(results, flips, pairs, pictures, settings, taken), encoding="utf-8")


def _by_size(results: Results) -> str:
    """The picture of the frontier in words."""
    perplexity = results.by_key["perplexity"].estimates
    sizes = {model: size.effective_parameters / 1e6 for model, size in results.sizes.items()}
    return ", ".join(f"{model} {perplexity[model].value:.4g} at {size:.1f}M" for model, size in sizes.items())
