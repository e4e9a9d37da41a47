"""The card of an exported model: what was measured, and what it rests on."""

import json
from pathlib import Path
from typing import Any

from stages.lib.figures.measures import BEFORE_RECOVERY
from stages.lib.plumbing.params import Params, Recover
from stages.lib.pruning.scopes import PruningMethod, resolve_scope
from stages.lib.shrinking.variants import Method, parse_variant

METRICS = Path("metrics")

_NAMES = {
    "effective_parameters": "effective parameters (non-zero entries)",
    "total_parameters": "parameters",
    "prunable_weights": "prunable weights",
    "pruned_weights": "weights set to zero",
    "sparsity": "share of the prunable weights",
    BEFORE_RECOVERY: "perplexity before recovery",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "tokens": "tokens scored",
    "accuracy": "accuracy with a head on the frozen body, or fine-tuned",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "lead_rougeL": "ROUGE-L of the first sentence",
}


_SMALLEST: dict[PruningMethod, str] = {
    "magnitude": "Pruned by magnitude: the smallest weights",
    "wanda": "Pruned by Wanda: the smallest weights times the norm of what they multiply",
    "sparsegpt": "Pruned by SparseGPT, and the other weights changed to make up for it: the cheapest weights",
    "random": "Pruned at random: weights drawn by the seed",
}
_WHERE = {"global": "of all blocks' matrices together", "layer": "of each matrix", "row": "of each output of a matrix"}
_TOWARDS = {"distill": "towards what the original predicts", "lm": "on the text alone"}
_WHAT: dict[Method, str] = {
    "merged": "Blocks in groups of {n}: all of a group use the average of its aligned feed-forwards.",
    "merged-anchor": "Blocks in groups of {n}: the first of a group uses the average of its aligned feed-forwards.",
    "compressed": "Of each {n} blocks the first is kept, the others are gone.",
    "pruned-tied-head": "The smallest weights of the tied head are zero; no block is touched.",
    "distilled": "A smaller pretrained model, as the pipeline normalized it.",
}


def read_metrics(model: str) -> dict[str, Any]:
    """What the pipeline measured of a model; a metric that is not there yet is left out."""
    if model not in ("original", "pruned"):
        files = [METRICS / "compare" / f"{model}.json"]
    else:
        files = [
            *([METRICS / "prune.json", METRICS / "recover" / "pruned.json"] if model == "pruned" else []),
            METRICS / ("baseline_ppl.json" if model == "original" else "post_ppl.json"),
            METRICS / "classify" / f"{model}.json",
            METRICS / "summarize" / f"{model}.json",
        ]
    measured: dict[str, Any] = {}
    for file in files:
        if file.is_file():
            measured |= json.loads(file.read_text(encoding="utf-8"))
    return measured


def _what(model: str, params: Params) -> str:
    if model == "original":
        return "The original model, as the pipeline normalized it."
    if model == "pruned":
        method, scope = params.prune.method, resolve_scope(params.prune.method, params.prune.scope)
        what = f"{_SMALLEST[method]} {_WHERE.get(scope, f'by the pattern {scope}')} are zero."
    else:
        variant = parse_variant(model)
        what = _WHAT[variant.method].format(n=variant.n)
    return " ".join([what, *_recovered(params.recover)])


def _recovered(settings: Recover) -> list[str]:
    if not settings.steps:
        return []
    return [
        f"Then it was trained for {settings.steps:,} steps of {settings.tokens_per_step:,} tokens, "
        f"{_TOWARDS[settings.objective]}, what is zero in matrices held at zero."
    ]


def render(model: str, params: Params, measured: dict[str, Any]) -> str:
    """The card as Markdown with the hub's metadata header."""
    rows = [f"| {name} | {measured[key]:,} |" for key, name in _NAMES.items() if key in measured]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            f"tags: [{'normalized' if model == 'original' else model}]",
            "---",
            "",
            f"# {model}",
            "",
            _what(model, params),
            "The weights are stored dense, zeros in place: plain `transformers` loads them.",
            "",
            "| measured | |",
            "|---|---:|",
            *(rows or ["| nothing yet | |"]),
            "",
        ]
    )
