"""The report as Markdown: the answer, the pair, all models, their sensitivity, and the settings behind them."""

from collections.abc import Mapping

from stages.lib.figures.comparison import Comparison
from stages.lib.reporting.study import Results
from stages.lib.reporting.templates import rendered
from stages.lib.reporting.wording import (
    NO_DISTANCE,
    Cell,
    answer,
    changed,
    decimals,
    frontier_rows,
    harness_caption,
    harness_rows,
    headed,
    matrix_rows,
    models_table,
    notes,
    p_value,
    size_rows,
    with_interval,
)


def render(results: Results, settings: Mapping[str, str]) -> str:
    """The whole report as Markdown."""
    columns, models = models_table(results)
    rows = [[model, *map(_marked, cells)] for model, cells in models.items()]
    rows += [[f"{model}: not measured. {reason}", *[""] * len(columns)] for model, reason in results.absent.items()]
    return rendered(
        "report.md",
        answer=answer(results),
        before=results.sizes["original"],
        after=results.sizes["pruned"],
        pair=[_pair(comparison) for comparison in results.comparisons],
        columns=columns,
        models=rows,
        sizes=size_rows(results.sizes),
        notes=notes(results),
        frontier=frontier_rows(results.frontier),
        matrices=matrix_rows(results.sensitivity["matrices"]),
        harness=harness_rows(results.harness),
        harness_caption=harness_caption(results.harness),
        settings=settings,
    )


def _marked(cell: Cell) -> str:
    return cell.text + "".join(mark.sign for mark in cell.marks)


def _pair(comparison: Comparison) -> list[str]:
    """One figure of the original and the pruned model, its change, and what it is computed on.

    The original has no distance to itself, so that a distance has no change.
    """
    original, pruned = comparison.estimates.get("original"), comparison.estimates["pruned"]
    change = comparison.changes.get(("pruned", "original"))
    digits = decimals((original or pruned).value)
    on = [comparison.items]
    if comparison.baseline is not None:
        on.append(f"{comparison.baseline_name} {comparison.baseline:.3f}")
    if change is not None:
        on.append(f"p {p_value(change.p)}, corrected p {p_value(change.p_holm)}")
    return [
        headed(comparison),
        with_interval(original.value, original.interval, digits) if original else NO_DISTANCE,
        with_interval(pruned.value, pruned.interval, digits),
        changed(comparison, change, digits) if change else "",
        "; ".join(on),
    ]
