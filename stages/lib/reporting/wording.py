"""The wording that the report and its page share: answer, notes, tables, and how a figure is written."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from stages.lib.figures.comparison import REFERENCES, Change, Comparison
from stages.lib.figures.definitions import Estimate
from stages.lib.figures.statistics import Interval, PValue
from stages.lib.reporting.study import Results, Size
from stages.lib.reporting.templates import rendered

SIGNIFICANT = 0.05
FEW = 30
"""Below this many items, the report says how many there are; docs/protocol.md has the intervals' coverage."""
IN_THE_TABLE = (
    *("perplexity", "kl_divergence", "same_top", "bits_per_byte"),
    *("accuracy", "flips", "rougeL", "degenerate"),
)
"""Each score with the distance to the original, or the defect, that it may hide."""
NO_DISTANCE = "—"
"""The original's distance to itself."""
SIGNS = dict(zip(REFERENCES, "*†", strict=True))


@dataclass(frozen=True)
class Mark:
    """A sign that a model differs significantly from a reference."""

    sign: str
    reference: str
    p: str


@dataclass(frozen=True)
class Cell:
    """A figure as text, and its marks."""

    text: str
    marks: Sequence[Mark] = ()


def answer(results: Results) -> str:
    """The cost of pruning in a few sentences: size, scores, and distance to the original."""
    before, after = (results.sizes[model].effective_parameters / 1e6 for model in ("original", "pruned"))
    perplexity = results.by_key["perplexity"]
    unpruned, pruned = (with_interval(perplexity.estimates[model].value, None, 1) for model in ("original", "pruned"))
    factor = with_interval(perplexity.changes["pruned", "original"].value, None, 2)
    accuracy, rouge = (
        [results.by_key[key].estimates[model].value for model in ("original", "pruned")]
        for key in ("accuracy", "rougeL")
    )
    divergence, same_top, flips = (
        results.by_key[key].estimates["pruned"].value for key in ("kl_divergence", "same_top", "flips")
    )
    text = (
        f"Setting {results.sparsity:.1%} of the prunable weights to zero takes the model from {before:.1f}M to "
        f"{after:.1f}M effective parameters. Perplexity goes from {unpruned} to {pruned} (× {factor}), "
        f"accuracy from {accuracy[0]:.3f} to {accuracy[1]:.3f}, ROUGE-L from {rouge[0]:.3f} to {rouge[1]:.3f}. "
        f"The pruned model's most likely token differs from the original's for {1 - same_top:.1%} of tokens "
        f"(KL divergence {with_interval(divergence, None, decimals(divergence))} nats per token), "
        f"and its predicted class for {flips:.1%} of reviews."
    )
    if results.unrecovered:
        text += f" Before recovery, perplexity was {with_interval(results.unrecovered['pruned'].value, None, 1)}."
    return text


def marks(comparison: Comparison, model: str) -> list[Mark]:
    """A mark for each reference that a model differs from significantly."""
    found = [(reference, comparison.changes.get((model, reference))) for reference in REFERENCES]
    return [
        Mark(SIGNS[reference], reference, p_value(change.p_holm))
        for reference, change in found
        if change is not None and change.p_holm.value < SIGNIFICANT
    ]


def notes(results: Results) -> list[str]:
    """What the marks mean, which model is which, and how not to read the figures."""
    perplexities = results.by_key["perplexity"].estimates
    lost = [model for model in results.sizes if perplexities[model].value > results.vocabulary]
    untrained = [model for model in lost if model.startswith(("merged_", "compressed_")) and not results.unrecovered]
    return rendered(
        "notes", results=results, lost=lost, untrained=untrained, few=_few(results), significant=SIGNIFICANT
    ).splitlines()


def _few(results: Results) -> list[str]:
    """What is measured on few items, and the smallest p-value that so many allow."""
    measured = {comparison.figure.measure: comparison for comparison in results.comparisons}.values()
    found = [
        f"{comparison.figure.measure} on {comparison.items} (no p-value below {min(1, 2 / 2**comparison.n):.2g})"
        for comparison in measured
        if comparison.n < FEW
    ]
    items = int(results.sensitivity["sparsities"]["items"].iloc[0])
    return [*found, f"sensitivity on {items} items"] if items < FEW else found


def p_value(p: PValue) -> str:
    """`= p` or, of a bound, `≤ p`, with at least two digits and as many as tell it from the level of significance."""
    texts = (f"{p.value:.{digits}g}" for digits in range(2, 18))
    significant = p.value < SIGNIFICANT
    return ("≤ " if p.bound else "= ") + next(text for text in texts if (float(text) < SIGNIFICANT) == significant)


def headed(comparison: Comparison) -> str:
    return f"{comparison.figure.name} {'↓' if comparison.figure.better == 'lower' else '↑'}"


def decimals(value: float) -> int:
    return 0 if value >= 1000 else 2 if value >= 10 else 3


def with_interval(value: float, interval: Interval | None, digits: int, sign: str = "") -> str:
    if math.isinf(value):
        return "above 1.8e308"
    form = f"{sign},.{digits}f" if abs(value) < 1e6 else f"{sign}.2e"
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def changed(comparison: Comparison, change: Change, digits: int) -> str:
    """A change as text, with its interval: a factor for perplexity, a difference otherwise."""
    if comparison.figure.change == "ratio":
        return "× " + with_interval(change.value, change.interval, decimals(change.value))
    return with_interval(change.value, change.interval, digits, "+")


def estimated(estimate: Estimate) -> str:
    return with_interval(estimate.value, estimate.interval, decimals(estimate.value))


def models_table(results: Results) -> tuple[list[str], dict[str, list[Cell]]]:
    """The names of the columns, and each model's cells: its effective size, its scores, and its distances."""
    shown, unrecovered = [results.by_key[key] for key in IN_THE_TABLE], results.unrecovered
    before = ["perplexity before recovery ↓"] if unrecovered else []
    rows: dict[str, list[Cell]] = {}
    for model, size in results.sizes.items():
        rows[model] = [Cell(f"{size.effective_parameters / 1e6:.1f}M")]
        if unrecovered:
            rows[model].append(Cell(estimated(unrecovered[model]) if model in unrecovered else ""))
        rows[model] += [_cell(comparison, model, results.no_distance) for comparison in shown]
    return ["effective", *before, *map(headed, shown)], rows


def _cell(comparison: Comparison, model: str, no_distance: Mapping[str, str]) -> Cell:
    if model not in comparison.estimates:
        return Cell(no_distance.get(model, NO_DISTANCE))
    return Cell(estimated(comparison.estimates[model]), marks(comparison, model))


def size_rows(sizes: Mapping[str, Size]) -> list[list[str]]:
    """The models' sizes, header first."""
    table = [["model", "parameters", "distinct", "effective", "stored, bytes", "FLOPs per token"]]
    for model, size in sizes.items():
        parameters = size.total_parameters, size.distinct_parameters, size.effective_parameters
        counts = *parameters, size.stored_bytes, size.flops_per_token
        table.append([model, *(f"{count:,}" for count in counts)])
    return table


def curve_name(method: str, steps: int) -> str:
    return f"{method}, {steps} steps of recovery" if steps else method


def frontier_rows(frontier: pd.DataFrame) -> list[list[str]]:
    """The frontier's table, header first: a row per method before and after recovery, a column per sparsity."""
    points = frontier.sort_values("sparsity", kind="stable").to_dict("records")
    sizes: dict[float, str] = {}
    rows = {curve: [curve_name(*curve)] for curve in zip(frontier["method"], frontier["recovery_steps"], strict=True)}
    for point in points:
        sizes.setdefault(point["sparsity"], f"{point['effective_parameters'] / 1e6:.1f}M")
        rows[point["method"], point["recovery_steps"]].append(estimated(_measured(point)))
    return [["method", *(f"{sparsity:.1%}, {size} ↓" for sparsity, size in sizes.items())], *rows.values()]


def harness_rows(found: pd.DataFrame) -> list[list[str]]:
    """The harness's table, header first: a row per model, per task a column of its metric and one of flips, if any."""
    columns: dict[str, dict[str, str]] = {}
    for task, rows in found.groupby("task", sort=False):
        for row in rows.to_dict("records"):
            direction = {True: " ↑", False: " ↓"}.get(row["higher_is_better"], "")
            digits = decimals(row["value"])
            error = "" if pd.isna(row["stderr"]) else f" ± {row['stderr']:.{digits}f}"
            column = columns.setdefault(f"{task}: {row['metric']}{direction}", {})
            column[row["model"]] = with_interval(row["value"], None, digits) + error
        for row in rows[rows["flips"].notna()].to_dict("records"):
            columns.setdefault(f"{task}: flips ↓", {})[row["model"]] = estimated(_measured(row, "flips"))
    models = dict.fromkeys(found["model"])
    return [
        ["model", *columns],
        *([model, *(of.get(model, NO_DISTANCE) for of in columns.values())] for model in models),
    ]


def harness_caption(found: pd.DataFrame) -> str:
    """What the harness's table shows; empty if there is none."""
    if found.empty:
        return ""
    documents = found.drop_duplicates("task").set_index("task")["n"]
    return (
        f"Tasks of lm-evaluation-harness {found['lm_eval'].iloc[0]}: "
        + ", ".join(f"{task} on {n:,} documents" for task, n in documents.items())
        + ". Each metric ± its standard error. Flips: the share of documents that the model gets right and the "
        "original wrong, or the other way round, with its 95 % interval (Wilson's)."
    )


def matrix_rows(matrices: pd.DataFrame) -> list[list[str]]:
    """The kinds of matrices pruned alone, header first, sorted by cost per weight, highest first."""
    table = [["kind of matrix", "weights pruned", "perplexity / unpruned ↓", "nats per million weights ↓"]]
    for row in matrices.sort_values("nats_per_million", ascending=False, kind="stable").to_dict("records"):
        ratio = estimated(_measured(row, "ratio"))
        table.append([row["matrix"], f"{row['pruned_weights']:,}", ratio, f"{row['nats_per_million']:.4f}"])
    return table


def _measured(point: Mapping[Hashable, Any], key: str = "perplexity") -> Estimate:
    low, high = point[f"{key}_low"], point[f"{key}_high"]
    return Estimate(point[key], None if math.isnan(low) else Interval(low, high))
