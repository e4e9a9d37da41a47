"""The report as one page: a self-contained HTML file that can be sent to anybody."""

import base64
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from stages.lib.figures.comparison import Tables
from stages.lib.files.places import REPORT
from stages.lib.files.rows import class_names
from stages.lib.files.writing import new_file
from stages.lib.reporting.examples import Examples, read_examples
from stages.lib.reporting.pictures import draw
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
    size_rows,
)

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params


def render(
    results: Results,
    examples: Examples,
    pictures: Mapping[str, Path],
    narrow: Mapping[str, Path],
    settings: Mapping[str, str],
    times: Mapping[str, Mapping[str, float]],
) -> str:
    """The page as HTML, text from data escaped. Takes the report's SVGs by name, for screens and for telephones."""
    columns, models = models_table(results)
    machine = f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    perplexity, divergence = results.by_key["perplexity"], results.by_key["kl_divergence"]
    by_size = {
        model: f"{perplexity.estimates[model].value:.4g} at {size.effective_parameters / 1e6:.1f}M"
        for model, size in results.sizes.items()
    }
    by_distance = {
        model: f"× {perplexity.changes[model, 'original'].value:.4g} at {estimate.value:.3g}"
        for model, estimate in divergence.estimates.items()
    }
    by_sparsity, *methods = frontier_rows(results.frontier)
    return rendered(
        "page.html",
        answer=answer(results),
        columns=columns,
        models=models,
        sizes=size_rows(results.sizes),
        notes=notes(results),
        absent=results.absent,
        by_sparsity=by_sparsity,
        methods=methods,
        matrices=matrix_rows(results.sensitivity["matrices"]),
        harness=harness_rows(results.harness),
        harness_caption=harness_caption(results.harness),
        pictures={name: _base64(path) for name, path in pictures.items()},
        narrow={name: _base64(path) for name, path in narrow.items()},
        by_size=_listed(by_size),
        by_distance=_listed(by_distance),
        examples=examples,
        scored={key: results.by_key[key].items for key in ("perplexity", "accuracy")},
        other_top=1 - results.by_key["same_top"].estimates["pruned"].value,
        settings=settings,
        machine=machine,
        times=times,
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _listed(by_model: Mapping[str, str]) -> str:
    return ", ".join(f"{model} {text}" for model, text in by_model.items())


def write_page(
    results: Results,
    tables: Tables,
    pictures: Mapping[str, Path],
    settings: Mapping[str, str],
    params: "Params",
    times: Path,
) -> None:
    """Write `index.html`, which has this machine's times, so neither Git nor DVC keeps it."""
    examples = read_examples(tables, class_names(params.reviews))
    taken = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(times.glob("*.json"))}
    with TemporaryDirectory() as folder, new_file(REPORT / "index.html") as temporary:
        narrow = draw(results, params.sensitivity.alone, Path(folder), narrow=True)
        temporary.write_text(render(results, examples, pictures, narrow, settings, taken), encoding="utf-8")
