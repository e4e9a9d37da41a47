"""The report as Markdown: the answer, the pair, all models, their sensitivity, and the settings behind them."""

from collections.abc import Mapping, Sequence

from stages.lib.figures.comparison import Comparison
from stages.lib.reporting.study import Results
from stages.lib.reporting.wording import (
    HEADED_BEFORE_RECOVERY,
    IN_THE_TABLE,
    answer,
    estimated,
    frontier_rows,
    headed,
    marks,
    notes,
    places,
    with_interval,
)


def render(results: Results, settings: Mapping[str, str]) -> str:
    """The whole report as Markdown."""
    return "\n".join(
        [
            "# What did pruning cost?",
            "",
            answer(results),
            "",
            *_pair(results),
            "",
            "Brackets hold 95 % intervals: Wilson's for accuracy, a bootstrap over the items otherwise; those of",
            "differences are paired, over the same items. p is McNemar's for accuracy, and that of the paired",
            "bootstrap otherwise. ROUGE scores only the text that a model adds after document and cue.",
            "",
            "![Perplexity, accuracy and ROUGE-L of all models](cost.svg)",
            "",
            "## All models",
            "",
            *_models(results),
            "",
            *["- " + note.replace("*", "\\*") for note in notes(results)],
            "",
            "![Perplexity by effective parameters](frontier.svg)",
            "",
            *_frontier(results),
            "## Sensitivity",
            "",
            "![Perplexity by sparsity, by kind of matrix and by block](sensitivity.svg)",
            "",
            "## Settings, hashes and versions",
            "",
            "| | |",
            "|---|---|",
            *[f"| {_escape(name)} | {_escape(value)} |" for name, value in settings.items()],
            "",
        ]
    )


def _pair(results: Results) -> list[str]:
    before, after = results.sizes["original"], results.sizes["pruned"]
    fewer = after.effective_parameters - before.effective_parameters
    return [
        "| | original | pruned | difference | on |",
        "|---|---:|---:|---:|---|",
        f"| parameters | {before.total_parameters:,} | {after.total_parameters:,} | 0 | tied tensors once |",
        f"| effective parameters | {before.effective_parameters:,} | {after.effective_parameters:,} | {fewer:+,} "
        "| non-zero entries |",
        f"| stored, bytes | {before.stored_bytes:,} | {after.stored_bytes:,} | "
        "| the pruned model is a recipe over the original |",
        *[_row(comparison) for comparison in results.comparisons],
    ]


def _row(comparison: Comparison) -> str:
    original, pruned = comparison.estimates["original"], comparison.estimates["pruned"]
    difference = comparison.differences["pruned", "original"]
    digits = places(original.value)
    on = [comparison.items]
    if comparison.baseline is not None:
        on.append(f"{comparison.baseline_name} {comparison.baseline:.3f}")
    cells = [
        headed(comparison),
        with_interval(original.value, original.interval, digits),
        with_interval(pruned.value, pruned.interval, digits),
        with_interval(difference.value, difference.interval, digits, "+"),
        "; ".join([*on, f"p = {difference.p:.1g}"]),
    ]
    return f"| {' | '.join(cells)} |"


def _models(results: Results) -> list[str]:
    shown, unrecovered = [results.by_key[key] for key in IN_THE_TABLE], results.unrecovered
    before = [HEADED_BEFORE_RECOVERY] if unrecovered else []
    header = ["", "parameters", "effective", "stored, bytes", *before, *(headed(comparison) for comparison in shown)]
    rows = [
        [
            model,
            f"{size.total_parameters:,}",
            f"{size.effective_parameters:,}",
            f"{size.stored_bytes:,}",
            *(estimated(unrecovered[model]) if model in unrecovered else "" for _ in before),
            *(_measured(comparison, model) for comparison in shown),
        ]
        for model, size in results.sizes.items()
    ]
    rows += [
        [f"{model}: not measured. {_escape(reason)}", *[""] * (len(header) - 1)]
        for model, reason in results.absent.items()
    ]
    return _table([header, *rows])


def _frontier(results: Results) -> list[str]:
    return [*_table(frontier_rows(results.frontier)), ""] if len(results.frontier) else []


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose first row is the header, and whose first column holds names."""
    head, *body = rows
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *body)]


def _measured(comparison: Comparison, model: str) -> str:
    """A model's figure, its interval, and its marks."""
    signs = "".join(mark.sign for mark in marks(comparison, model))
    return estimated(comparison.estimates[model]) + signs.replace("*", "\\*")


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
