"""A study: everything measured of all its models, read together, and as two tables for scripts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from stages.lib.figures.comparison import REFERENCES, Comparison, Tables, compare, rows_by_model
from stages.lib.figures.definitions import FIGURES, UNRECOVERED, Estimate, estimates, items
from stages.lib.figures.harness import read_harness
from stages.lib.figures.tables import read_frontier, sensitivity_tables
from stages.lib.files.parquet import read_table, why_absent
from stages.lib.files.places import FRONTIER, MODEL, SENSITIVITY, MeasureName, predictions_path
from stages.lib.files.writing import significant
from stages.lib.weights.config import read_config

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params

ITEM_MEASURES: tuple[MeasureName, ...] = ("perplexity", "classify", "summarize")


@dataclass(frozen=True)
class Size:
    """The size of a model."""

    total_parameters: int
    distinct_parameters: int
    """A tensor that several blocks share counts once."""
    effective_parameters: int
    flops_per_token: int
    """In the matrix products for one token that attends to `perplexity.context` tokens, itself included."""
    stored_bytes: int
    """Of the recipe, or of the weights for the original, on which the recipes are based."""


@dataclass(frozen=True)
class Results:
    """Everything that a report needs."""

    comparisons: Sequence[Comparison]
    sizes: Mapping[str, Size]
    """By model, the original first."""
    unrecovered: Mapping[str, Estimate]
    """The perplexities before recovery; empty without recovery."""
    frontier: pd.DataFrame
    """As `read_frontier` returns it."""
    sensitivity: Mapping[str, pd.DataFrame]
    """As `sensitivity_tables` returns them."""
    absent: Mapping[str, str]
    """The models that the study has but this run does not, and the reason."""
    no_distance: Mapping[str, str]
    """The models whose predictions cannot be compared with the original's token by token, and the reason."""
    sparsity: float
    """The share of the prunable weights that is pruned."""
    vocabulary: int
    """The number of tokens that a uniform guess chooses from."""
    harness: pd.DataFrame
    """As `read_harness` returns it."""

    @property
    def by_key(self) -> dict[str, Comparison]:
        """The comparisons by the key of their figure."""
        return {comparison.figure.key: comparison for comparison in self.comparisons}


def read_tables(variants: Sequence[str]) -> Tables:
    """The predictions of the original, the pruned model and all variants there are.

    Raises UserError if they cannot be read.
    """
    tables = {
        model: {measure: read_table(predictions_path(measure, model)) for measure in ITEM_MEASURES}
        for model in ("original", "pruned", *variants)
    }
    return {model: found for model, found in tables.items() if not why_absent(found["perplexity"])}


def read_results(params: "Params", tables: Tables) -> Results:
    """Everything that was measured, with all models compared. Raises UserError if anything is missing or damaged."""
    resampling = params.statistics.resamples, params.seed
    sizes = {model: read_table(predictions_path("size", model)).iloc[0] for model in tables}
    left_out = {
        variant: str(why_absent(read_table(predictions_path("size", variant))))
        for variant in params.compare.variants
        if variant not in tables
    }
    unrecovered = {
        model: estimates(UNRECOVERED, [rows], *resampling)[0]
        for model, found in tables.items()
        if UNRECOVERED.values in (rows := items("perplexity", found["perplexity"]))
    }
    distilled, ends = params.distilled, tables["original"]["perplexity"]["end"]
    items_of = {measure: rows_by_model(measure, tables) for measure in ITEM_MEASURES}
    return Results(
        comparisons=[compare(figure, items_of[figure.measure], *resampling) for figure in FIGURES],
        sizes={model: Size(**{key: int(size[key]) for key in Size.__annotations__}) for model, size in sizes.items()},
        unrecovered=unrecovered,
        frontier=read_frontier(FRONTIER, params.frontier, *resampling),
        sensitivity=sensitivity_tables(read_table(SENSITIVITY), *resampling),
        absent=left_out | ({"distilled": distilled.reason} if distilled.source == "none" else {}),
        no_distance={
            model: "another vocabulary" if found["perplexity"]["end"].equals(ends) else "another tokenizer"
            for model, found in tables.items()
            if model != "original" and "kl" not in found["perplexity"]
        },
        sparsity=float(sizes["pruned"]["pruned_weights"] / sizes["pruned"]["prunable_weights"]),
        vocabulary=int(read_config(MODEL)["vocab_size"]),
        harness=read_harness(params.harness),
    )


def summary(results: Results) -> pd.DataFrame:
    """One row per model: sizes, every figure with its interval, and the corrected p against both references."""
    rows: list[dict[str, Any]] = []
    for model, size in results.sizes.items():
        row: dict[str, Any] = {"model": model, **vars(size)}
        for comparison in results.comparisons:
            key, estimate = comparison.figure.key, comparison.estimates.get(model)
            row |= dict.fromkeys([key, f"{key}_low", f"{key}_high"]) | (estimate.rounded(key) if estimate else {})
            row[f"{key}_n"] = comparison.n
            for reference in REFERENCES[comparison.figure.distance :]:  # a distance is to the original
                found = comparison.changes.get((model, reference))
                row[f"{key}_p_holm_vs_{reference}"] = significant(found.p_holm.value, 3) if found else None
        if results.unrecovered:
            before = results.unrecovered.get(model)
            row[UNRECOVERED.key] = significant(before.value) if before else None
        rows.append(row)
    rows += [{"model": model, "note": reason} for model, reason in results.absent.items()]
    table = pd.DataFrame(rows)
    whole = [*vars(results.sizes["original"]), *(f"{comparison.figure.key}_n" for comparison in results.comparisons)]
    return table.astype(dict.fromkeys(whole, "Int64"))  # an absent model has none, which int64 cannot express


def changes(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row per model, reference and figure: the paired change, and its p-values as they are and corrected."""
    return pd.DataFrame(
        [
            {
                "model": model,
                "reference": reference,
                "measure": comparison.figure.key,
                "change": comparison.figure.change,
                "value": significant(found.value),
                "low": significant(found.interval.low) if found.interval else None,
                "high": significant(found.interval.high) if found.interval else None,
                "p": significant(found.p.value, 3),
                "p_is_bound": found.p.bound,
                "p_holm": significant(found.p_holm.value, 3),
                "p_holm_is_bound": found.p_holm.bound,
                "n": comparison.n,
            }
            for comparison in comparisons
            for (model, reference), found in comparison.changes.items()
        ]
    )


def csv_tables(results: Results) -> dict[str, pd.DataFrame]:
    """The tables for scripts and plots, by their place under metrics/."""
    return {
        "summary": summary(results),
        "changes": changes(results.comparisons),
        "frontier": results.frontier,
        **{f"sensitivity/{name}": table for name, table in results.sensitivity.items()},
    }
