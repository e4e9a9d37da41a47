"""The card of an exported model: what was measured, and what it rests on."""

import json
from pathlib import Path
from typing import Any

METRICS = Path("metrics")

_NAMES = {
    "effective_parameters": "effective parameters (non-zero entries)",
    "total_parameters": "parameters",
    "prunable_weights": "prunable weights",
    "pruned_weights": "weights set to zero",
    "sparsity": "share of the prunable weights",
    "perplexity": "perplexity",
    "bits_per_byte": "bits per byte",
    "tokens": "tokens scored",
    "accuracy": "accuracy with a head on the frozen body, or fine-tuned",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "lead_rougeL": "ROUGE-L of the first sentence",
}


def read_metrics(model: str) -> dict[str, Any]:
    """What the pipeline measured of a model; a metric that is not there yet is left out."""
    files = [
        METRICS / ("baseline_ppl.json" if model == "original" else "post_ppl.json"),
        METRICS / "classify" / f"{model}.json",
        METRICS / "summarize" / f"{model}.json",
    ]
    if model != "original":
        files.insert(0, METRICS / "prune.json")
    measured: dict[str, Any] = {}
    for file in files:
        if file.is_file():
            measured |= json.loads(file.read_text(encoding="utf-8"))
    return measured


def render(model: str, measured: dict[str, Any]) -> str:
    """The card as Markdown with the hub's metadata header."""
    rows = [f"| {name} | {measured[key]:,} |" for key, name in _NAMES.items() if key in measured]
    what = (
        "The original model, as the pipeline normalized it."
        if model == "original"
        else "Pruned by global unstructured magnitude pruning: the smallest weights of all blocks' matrices are zero."
    )
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            "pipeline_tag: text-generation",
            f"tags: [{'pruned, magnitude-pruning' if model != 'original' else 'normalized'}]",
            "---",
            "",
            f"# {model}",
            "",
            what,
            "The weights are stored dense, zeros in place: plain `transformers` loads them.",
            "",
            "| measured | |",
            "|---|---:|",
            *(rows or ["| nothing yet | |"]),
            "",
        ]
    )
