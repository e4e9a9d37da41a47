"""The report's text: the answer, the pair, all models, their sensitivity, and what they rest on."""

from collections.abc import Mapping, Sequence

from stages.lib.comparison import Comparison
from stages.lib.measures import Estimate
from stages.lib.statistics import Interval
from stages.lib.study import Size

Sizes = Mapping[str, Size]

SIGNIFICANT = 0.05
IN_THE_TABLE = ("perplexity", "bits_per_byte", "accuracy", "rougeL")


def render(
    comparisons: Sequence[Comparison],
    sizes: Sizes,
    unrecovered: Mapping[str, Estimate],
    absent: Mapping[str, str],
    sparsity: float,
    vocabulary: int,
    rests_on: Mapping[str, str],
) -> str:
    """The whole report as Markdown.

    `unrecovered` has the perplexities before recovery, where there was one; `sparsity` is the pruned
    model's share of prunable weights, `absent` the models that are not there and why, `vocabulary`
    the number of tokens that a uniform guess chooses from.
    """
    by_key = {comparison.measure.key: comparison for comparison in comparisons}
    return "\n".join(
        [
            "# What did pruning cost?",
            "",
            _answer(by_key, sizes, unrecovered, sparsity),
            "",
            *_pair(comparisons, sizes),
            "",
            "Brackets hold 95 % intervals: Wilson's for accuracy, otherwise a bootstrap over the items; those of a",
            "difference are paired, over the same items. p is McNemar's for accuracy, otherwise that of the paired",
            "bootstrap. ROUGE scores only what a model adds after document and cue.",
            "",
            "![Perplexity, accuracy and ROUGE-L of all models](cost.svg)",
            "",
            "## All models",
            "",
            *_models(by_key, sizes, unrecovered, absent),
            "",
            *_notes(by_key, bool(unrecovered), vocabulary),
            "",
            "![Perplexity by effective parameters](frontier.svg)",
            "",
            "## Where it hurts",
            "",
            "![Perplexity by sparsity, by kind of matrix and by block](sensitivity.svg)",
            "",
            "## What this rests on",
            "",
            "| | |",
            "|---|---|",
            *[f"| {_escape(name)} | {_escape(value)} |" for name, value in rests_on.items()],
            "",
        ]
    )


def _answer(
    by_key: Mapping[str, Comparison], sizes: Sizes, unrecovered: Mapping[str, Estimate], sparsity: float
) -> str:
    before, after = (sizes[model].effective_parameters / 1e6 for model in ("original", "pruned"))
    perplexity, accuracy, rouge = (_both(by_key[key]) for key in ("perplexity", "accuracy", "rougeL"))
    return (
        f"Setting {sparsity:.1%} of the prunable weights to zero takes the model from {before:.1f}M to {after:.1f}M "
        f"effective parameters. Perplexity goes from {perplexity[0]:.1f} to {perplexity[1]:.1f} "
        f"(× {perplexity[1] / perplexity[0]:.2f}), accuracy from {accuracy[0]:.3f} to {accuracy[1]:.3f}, "
        f"ROUGE-L from {rouge[0]:.3f} to {rouge[1]:.3f}."
        + (f" Before recovery, perplexity was {unrecovered['pruned'].value:.1f}." if unrecovered else "")
    )


def _both(comparison: Comparison) -> tuple[float, float]:
    return comparison.estimates["original"].value, comparison.estimates["pruned"].value


def _pair(comparisons: Sequence[Comparison], sizes: Sizes) -> list[str]:
    before, after = sizes["original"], sizes["pruned"]
    fewer = after.effective_parameters - before.effective_parameters
    return [
        "| | original | pruned | difference | on |",
        "|---|---:|---:|---:|---|",
        f"| parameters | {before.total_parameters:,} | {after.total_parameters:,} | 0 | tied tensors once |",
        f"| effective parameters | {before.effective_parameters:,} | {after.effective_parameters:,} | {fewer:+,} "
        "| non-zero entries |",
        f"| stored, bytes | {before.stored_bytes:,} | {after.stored_bytes:,} | "
        "| the pruned model is a recipe over the original |",
        *[_row(comparison) for comparison in comparisons],
    ]


def _row(comparison: Comparison) -> str:
    original, pruned = comparison.estimates["original"], comparison.estimates["pruned"]
    difference = comparison.differences["pruned", "original"]
    places = _places(original.value)
    on = [comparison.items]
    if comparison.baseline is not None:
        on.append(f"{comparison.baseline_name} {comparison.baseline:.3f}")
    cells = [
        _headed(comparison),
        _with_interval(original.value, original.interval, places),
        _with_interval(pruned.value, pruned.interval, places),
        _with_interval(difference.value, difference.interval, places, "+"),
        "; ".join([*on, f"p = {difference.p:.1g}"]),
    ]
    return f"| {' | '.join(cells)} |"


def _models(
    by_key: Mapping[str, Comparison],
    sizes: Sizes,
    unrecovered: Mapping[str, Estimate],
    absent: Mapping[str, str],
) -> list[str]:
    shown = [by_key[key] for key in IN_THE_TABLE]
    before = ["perplexity before recovery ↓"] if unrecovered else []
    header = ["", "parameters", "effective", "stored, bytes", *before, *(_headed(comparison) for comparison in shown)]
    rows = [
        [
            model,
            f"{size.total_parameters:,}",
            f"{size.effective_parameters:,}",
            f"{size.stored_bytes:,}",
            *(_estimated(unrecovered[model]) if model in unrecovered else "" for _ in before),
            *(_measured(comparison, model) for comparison in shown),
        ]
        for model, size in sizes.items()
    ]
    rows += [
        [f"{model}: not measured. {_escape(reason)}", *[""] * (len(header) - 1)] for model, reason in absent.items()
    ]
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---", *["---:"] * (len(header) - 1)], *rows)]


def _measured(comparison: Comparison, model: str) -> str:
    """A model's figure, its interval, and marks where it differs significantly."""
    marks = [
        mark
        for mark, reference in (("\\*", "original"), ("†", "pruned"))
        if (model, reference) in comparison.differences
        and comparison.differences[model, reference].p_holm < SIGNIFICANT
    ]
    return _estimated(comparison.estimates[model]) + "".join(marks)


def _estimated(estimate: Estimate) -> str:
    return _with_interval(estimate.value, estimate.interval, _places(estimate.value))


def _notes(by_key: Mapping[str, Comparison], recovered: bool, vocabulary: int) -> list[str]:
    """What the marks say, which model is which, and what must not be read into the figures."""
    models = list(by_key["perplexity"].estimates)
    lost = [model for model, estimate in by_key["perplexity"].estimates.items() if estimate.value > vocabulary]
    notes = [
        f"\\* differs from the original, † from the pruned model: p < {SIGNIFICANT} on the same items, corrected by "
        f"Holm's method over the {len(models) - 1} models that are held against each.",
    ]
    if lost:
        notes.append(
            f"{', '.join(lost)}: a perplexity above {vocabulary:,}, worse than guessing uniformly among all tokens. "
            + (
                "This recovery is too short for them."
                if recovered
                else "They are not trained after the operation, and without that it destroys them; the published study "
                "fine-tuned them first, and its figures measure that training."
            )
        )
    if any(model.startswith("merged_") for model in models):
        notes.append(
            "`merged_n`: every block of a group of n uses the group's average feed-forward, as the published text "
            "says. `merged_n-anchor`: only the group's first block does, as its notebook did."
        )
    if any(model.startswith("compressed_") for model in models):
        notes.append("`compressed_n`: of each n blocks the first is kept, with its attention.")
    if "pruned-tied-head" in models:
        notes.append(
            "`pruned-tied-head`: what the published Pruned_104M really was. The smallest weights of the tied head, "
            "the token embedding, are zero, and no block is touched; `pruned` is what its text describes."
        )
    return [f"- {note}" for note in notes]


def _headed(comparison: Comparison) -> str:
    return f"{comparison.measure.name} {'↓' if comparison.measure.better == 'lower' else '↑'}"


def _places(value: float) -> int:
    return 0 if value >= 1000 else 2 if value >= 10 else 3


def _with_interval(value: float, interval: Interval | None, places: int, sign: str = "") -> str:
    form = f"{sign},.{places}f" if abs(value) < 1e6 else f"{sign}.2e"
    if interval is None:
        return f"{value:{form}}"
    return f"{value:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
