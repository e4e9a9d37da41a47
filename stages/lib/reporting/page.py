"""The report as one page: a self-contained HTML file that can be sent to anybody."""

import base64
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from stages.lib.corpora.rows import class_names, read_rows
from stages.lib.figures.comparison import Tables
from stages.lib.figures.definitions import Estimate
from stages.lib.files.places import DOCUMENTS, REPORT, REVIEWS
from stages.lib.files.writing import new_file
from stages.lib.reporting.example_changes import FlippedReview, SummaryPair, flipped_reviews, summary_pairs
from stages.lib.reporting.study import Results
from stages.lib.reporting.wording import (
    HEADED_BEFORE_RECOVERY,
    IN_THE_TABLE,
    Mark,
    answer,
    estimated,
    frontier_rows,
    headed,
    marks,
    notes,
)

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params

TEMPLATE = Path(__file__).parent / "page.html.j2"


@dataclass(frozen=True)
class Cell:
    """A figure as text, and as the value by which a table sorts it."""

    text: str
    value: float | str = ""
    interval: str = ""
    marks: Sequence[Mark] = ()


@dataclass(frozen=True)
class Row:
    model: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Run:
    """The settings of a run, and its machine."""

    settings: Mapping[str, str]
    machine: str
    times: Mapping[str, Mapping[str, float]]
    """By stage: `seconds` and `peak_resident_mb`."""


def render(
    results: Results,
    flips: Sequence[FlippedReview],
    pairs: Sequence[SummaryPair],
    pictures: Mapping[str, Path],
    run: Run,
) -> str:
    """The page as HTML; text from data is escaped.

    `pictures` are the report's SVGs by name: cost, frontier and sensitivity.
    """
    environment = Environment(loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined)
    environment.filters["code"] = _code
    before = [HEADED_BEFORE_RECOVERY] if results.unrecovered else []
    shown = [headed(results.by_key[key]) for key in IN_THE_TABLE]
    methods, *sparsities = frontier_rows(results.frontier)
    return environment.get_template(TEMPLATE.name).render(
        answer=answer(results),
        columns=["model", "parameters", "effective", "bytes", *before, *shown],
        rows=[_row(model, results) for model in results.sizes],
        notes=notes(results),
        absent=results.absent,
        methods=methods,
        sparsities=[[_written(text) for text in row] for row in sparsities],
        pictures={name: _inline(path) for name, path in pictures.items()},
        alternatives=_alternatives(results),
        flips=flips,
        reviews_scored=results.by_key["accuracy"].n,
        pairs=pairs,
        run=run,
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
    run = Run(settings, describe_machine(), read_times(times))
    with new_file(REPORT / "index.html") as temporary:
        temporary.write_text(render(results, flips, pairs, pictures, run), encoding="utf-8")


def _row(model: str, results: Results) -> Row:
    size = results.sizes[model]
    counts = [size.total_parameters, size.effective_parameters, size.stored_bytes]
    before = [_cell(results.unrecovered.get(model))] if results.unrecovered else []
    shown = [results.by_key[key] for key in IN_THE_TABLE]
    measured = [_cell(comparison.estimates[model], marks(comparison, model)) for comparison in shown]
    return Row(model, [*(Cell(f"{count:,}", count) for count in counts), *before, *measured])


def _cell(estimate: Estimate | None, marked: Sequence[Mark] = ()) -> Cell:
    if estimate is None:
        return Cell("")
    return replace(_written(estimated(estimate)), value=estimate.value, marks=marked)


def _written(text: str) -> Cell:
    """A figure and its interval, which the page shows on separate lines."""
    figure, _, interval = text.partition(" ")
    return Cell(figure, interval=interval)


def _alternatives(results: Results) -> dict[str, str]:
    """Text alternatives of the pictures."""
    perplexity = results.by_key["perplexity"].estimates
    sizes = {model: size.effective_parameters / 1e6 for model, size in results.sizes.items()}
    by_size = ", ".join(f"{model} {perplexity[model].value:.4g} at {size:.1f}M" for model, size in sizes.items())
    curves = "; each method's curve, as in the table below" if len(results.frontier) else ""
    return {
        "cost": "Perplexity, accuracy and ROUGE-L of all models with their intervals, as in the table above.",
        "frontier": f"Perplexity by effective parameters: {by_size}{curves}.",
        "sensitivity": "Perplexity by sparsity, and as a multiple of the unpruned one with each kind of matrix and "
        "each block pruned alone, as in metrics/sensitivity.",
    }


def _inline(path: Path) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _code(text: str) -> Markup:
    """Text between backticks as code."""
    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def describe_machine() -> str:
    """The system and processor of this machine, in words."""
    system = f"{platform.system()} on {platform.machine()}"
    return f"{system}, {os.cpu_count()} cores, Python {platform.python_version()}"


def read_times(folder: Path) -> dict[str, dict[str, float]]:
    """The time and memory of each stage's last run, by its name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
