"""The report as one page: a self-contained HTML file that can be sent to anybody."""

import base64
import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stages.lib.figures.comparison import Tables
from stages.lib.files.places import DOCUMENTS, REPORT, REVIEWS
from stages.lib.files.rows import class_names, read_rows
from stages.lib.files.writing import new_file
from stages.lib.reporting.study import Results
from stages.lib.reporting.templates import rendered
from stages.lib.reporting.wording import (
    answer,
    frontier_rows,
    harness_caption,
    harness_rows,
    matrix_rows,
    models_table,
    notes,
)

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params

SHOWN_CHARACTERS = 600
"""Of a text; the rest is cut off and replaced by …"""


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
    machine = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    perplexity = results.by_key["perplexity"].estimates
    by_size = {
        model: (perplexity[model].value, size.effective_parameters / 1e6) for model, size in results.sizes.items()
    }
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
        matrices=matrix_rows(results.sensitivity["matrices"]),
        harness=harness_rows(results.harness),
        harness_caption=harness_caption(results.harness),
        pictures={name: base64.b64encode(path.read_bytes()).decode() for name, path in pictures.items()},
        by_size=", ".join(f"{model} {value:.4g} at {size:.1f}M" for model, (value, size) in by_size.items()),
        flips=flips.to_dict("records"),
        reviews_scored=results.by_key["accuracy"].n,
        pairs=pairs.to_dict("records"),
        settings=settings,
        machine=machine,
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
    flips = flipped_reviews(read_rows(REVIEWS, "test"), original["classify"], pruned["classify"], classes)
    pairs = summary_pairs(read_rows(DOCUMENTS), original["summarize"], pruned["summarize"])
    taken = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(times.glob("*.json"))}
    with new_file(REPORT / "index.html") as temporary:
        temporary.write_text(render(results, flips, pairs, pictures, settings, taken), encoding="utf-8")


def flipped_reviews(
    reviews: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame, classes: Sequence[str]
) -> pd.DataFrame:
    """The reviews that the models classify differently, in the order in which they were scored.

    Columns: text, label, original and pruned (names of classes), and kind: whether pruning lost the review, won it, or
    replaced one mistake by another.
    """
    both = _both(original, pruned)
    both = both[both["predicted_original"] != both["predicted_pruned"]]
    label, before, after = both["label_original"], both["predicted_original"], both["predicted_pruned"]
    kinds = np.select([before == label, after == label], ["lost", "won"], "other")
    named = {
        key: [classes[number] for number in found]
        for key, found in zip(("label", "original", "pruned"), (label, before, after), strict=True)
    }
    return pd.DataFrame({"text": _texts(reviews, both), **named, "kind": kinds})


def summary_pairs(documents: pd.DataFrame, original: pd.DataFrame, pruned: pd.DataFrame) -> pd.DataFrame:
    """All documents with both summaries, those first that lost most ROUGE-L.

    Columns: text, reference, original and pruned (summaries), original_rouge, pruned_rouge, and kind: whether the
    pruned model's summary is worse, better or the same by ROUGE-L.
    """
    both = _both(original, pruned)
    change = both["rougeL_pruned"] - both["rougeL_original"]
    pairs = pd.DataFrame(
        {
            "text": _texts(documents, both),
            "reference": documents.set_index("document")["summary"].loc[both["document"]].to_numpy(),
            "original": both["summary_original"],
            "pruned": both["summary_pruned"],
            "original_rouge": both["rougeL_original"],
            "pruned_rouge": both["rougeL_pruned"],
            "kind": np.select([change < 0, change > 0], ["worse", "better"], "same"),
        }
    )
    return pairs.loc[change.sort_values(kind="stable").index]


def _both(original: pd.DataFrame, pruned: pd.DataFrame) -> pd.DataFrame:
    return original.merge(pruned, on="document", suffixes=("_original", "_pruned"), validate="one_to_one")


def _texts(rows: pd.DataFrame, chosen: pd.DataFrame) -> list[str]:
    """The texts of the chosen documents, cut to what is shown."""
    texts = rows.set_index("document")["text"].loc[chosen["document"]]
    return [text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS].rstrip() + " …" for text in texts]
