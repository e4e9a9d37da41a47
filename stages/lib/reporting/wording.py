"""The wording that the report and its page share: answer, notes, tables, and how a figure is written."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.lib.figures.comparison import REFERENCES, Comparison
from stages.lib.figures.definitions import Estimate
from stages.lib.figures.statistics import Interval
from stages.lib.reporting.study import Results
from stages.lib.reporting.templates import rendered

SIGNIFICANT = 0.05
IN_THE_TABLE = ("perplexity", "bits_per_byte", "accuracy", "rougeL")
SIGNS = dict(zip(REFERENCES, "*†", strict=True))


@dataclass(frozen=True)
class Mark:
    """A sign that a model differs significantly from a reference."""

    sign: str
    reference: str
    p: str


@dataclass(frozen=True)
class Cell:
    """A figure as text, the value by which a table sorts it, and its marks."""

    text: str
    value: float | str = ""
    marks: Sequence[Mark] = ()


def answer(results: Results) -> str:
    """The cost of pruning, in two sentences."""
    before, after = (results.sizes[model].effective_parameters / 1e6 for model in ("original", "pruned"))
    perplexity, accuracy, rouge = (
        [results.by_key[key].estimates[model].value for model in ("original", "pruned")]
        for key in ("perplexity", "accuracy", "rougeL")
    )
    unrecovered, sparsity = results.unrecovered, results.sparsity
    return (
        f"Setting {sparsity:.1%} of the prunable weights to zero takes the model from {before:.1f}M to {after:.1f}M "
        f"effective parameters. Perplexity goes from {perplexity[0]:.1f} to {perplexity[1]:.1f} "
        f"(× {perplexity[1] / perplexity[0]:.2f}), accuracy from {accuracy[0]:.3f} to {accuracy[1]:.3f}, "
        f"ROUGE-L from {rouge[0]:.3f} to {rouge[1]:.3f}."
        + (f" Before recovery, perplexity was {unrecovered['pruned'].value:.1f}." if unrecovered else "")
    )


def marks(comparison: Comparison, model: str) -> list[Mark]:
    """A mark for each reference that a model differs from significantly."""
    found = [(reference, comparison.differences.get((model, reference))) for reference in REFERENCES]
    return [
        Mark(SIGNS[reference], reference, f"{difference.p_holm:.1g}")
        for reference, difference in found
        if difference is not None and difference.p_holm < SIGNIFICANT
    ]


def notes(results: Results) -> list[str]:
    """What the marks mean, which model is which, and how not to read the figures."""
    perplexities = results.by_key["perplexity"].estimates
    lost = [model for model in results.sizes if perplexities[model].value > results.vocabulary]
    return rendered("notes", results=results, lost=lost, significant=SIGNIFICANT).splitlines()


def headed(comparison: Comparison) -> str:
    return f"{comparison.figure.name} {'↓' if comparison.figure.better == 'lower' else '↑'}"


def decimals(value: float) -> int:
    return 0 if value >= 1000 else 2 if value >= 10 else 3


def with_interval(value: float, interval: Interval | None, digits: int, sign: str = "") -> str:
    form = f"{sign},.{digits}f" if abs(value) < 1e6 else f"{sign}.2e"
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def estimated(estimate: Estimate) -> str:
    return with_interval(estimate.value, estimate.interval, decimals(estimate.value))


def models_table(results: Results) -> tuple[list[str], dict[str, list[Cell]]]:
    """The names of the columns, and each model's cells: its size, and the figures with the most to say."""
    shown, unrecovered = [results.by_key[key] for key in IN_THE_TABLE], results.unrecovered
    before = ["perplexity before recovery ↓"] if unrecovered else []
    rows: dict[str, list[Cell]] = {}
    for model, size in results.sizes.items():
        counts = (size.total_parameters, size.effective_parameters, size.stored_bytes)
        rows[model] = [Cell(f"{count:,}", count) for count in counts]
        if unrecovered:
            rows[model].append(_cell(unrecovered[model]) if model in unrecovered else Cell(""))
        rows[model] += [_cell(comparison.estimates[model], marks(comparison, model)) for comparison in shown]
    return ["parameters", "effective", "stored, bytes", *before, *map(headed, shown)], rows


def _cell(estimate: Estimate, marked: Sequence[Mark] = ()) -> Cell:
    return Cell(estimated(estimate), estimate.value, marked)


def curve_name(method: str, steps: int) -> str:
    return f"{method}, {steps} steps of recovery" if steps else method


def frontier_rows(frontier: pd.DataFrame) -> list[list[str]]:
    """The frontier's table, header first: a row per sparsity, a column per method before and after recovery."""
    curves = list(dict.fromkeys(zip(frontier["method"], frontier["recovery_steps"], strict=True)))
    points = {(row["sparsity"], row["method"], row["recovery_steps"]): row for row in frontier.to_dict("records")}
    table = [["sparsity", "effective", *(f"{curve_name(*curve)} ↓" for curve in curves)]]
    for sparsity in sorted(set(frontier["sparsity"])):
        row = [points[sparsity, *curve] for curve in curves]
        millions = row[0]["effective_parameters"] / 1e6
        table.append([f"{sparsity:.1%}", f"{millions:.1f}M", *(estimated(_measured(point)) for point in row)])
    return table


def _measured(point: Mapping[Hashable, Any]) -> Estimate:
    low, high = point["perplexity_low"], point["perplexity_high"]
    return Estimate(point["perplexity"], None if math.isnan(low) else Interval(low, high))  # one window has none
