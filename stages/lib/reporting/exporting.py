"""Exports a model as a dense Hugging Face folder, without a model class, with a card of its figures."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import save_torch_state_dict

from stages.lib.figures.definitions import FIGURES, UNRECOVERED
from stages.lib.files.hashing import SUMS
from stages.lib.files.places import MEASURES, metrics_path
from stages.lib.pruning.methods import method_named, resolve_scope
from stages.lib.recipes.recipe import apart, materialize
from stages.lib.reporting.templates import rendered
from stages.lib.shrinking.variants import parse_variant
from stages.lib.weights.checkpoint import Checkpoint
from stages.lib.weights.shards import INDEX

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params

_NAMES = {
    "effective_parameters": "effective parameters (non-zero entries)",
    "total_parameters": "parameters",
    "distinct_parameters": "distinct parameters (shared tensors once)",
    "prunable_weights": "prunable weights",
    "pruned_weights": "weights set to zero",
    "sparsity": "share of the prunable weights",
    "flops_per_token": "floating-point operations per token, in matrix products",
    UNRECOVERED.key: "perplexity before recovery",
    **{figure.key: figure.name for figure in FIGURES},
    "kl_divergence": "KL divergence from the original, nats per token",
    "same_top": "share of tokens at which its most likely token is the original's",
    "accuracy": "accuracy of a classification head",
    "flips": "share of reviews whose predicted class is not the original's",
    "degenerate": "share of summaries that are empty or repeat themselves",
    "tokens": "tokens scored",
    "lead_rougeL": "ROUGE-L of the first sentence",
}


def export(base: Path, recipe: Path, out: Path) -> None:
    """Write config, tokenizer and weights of a recipe's model into the folder `out`. Raises as `materialize` does."""
    made = materialize(Checkpoint(base), recipe)
    # Files of 5 GB at most, as transformers writes them; safetensors refuses tensors that share memory.
    save_torch_state_dict(apart(made.weights), out)
    ignored = shutil.ignore_patterns("*.safetensors", INDEX, "config.json", SUMS)
    shutil.copytree(made.checkpoint.folder, out, ignore=ignored, dirs_exist_ok=True)
    (out / "config.json").write_text(json.dumps(made.config, indent=2) + "\n", encoding="utf-8")


def read_metrics(model: str) -> dict[str, Any]:
    """The figures that the pipeline has measured of a model so far."""
    measured: dict[str, Any] = {}
    for path in (metrics_path(measure, model) for measure in MEASURES):
        if path.is_file():
            measured |= json.loads(path.read_text(encoding="utf-8"))
    return measured


def render(model: str, params: "Params", measured: dict[str, Any]) -> str:
    """The card as Markdown, with the hub's metadata header."""
    return rendered(
        "card.md",
        model=model,
        variant=None if model in ("original", "pruned") else parse_variant(model),
        method=method_named(params.prune.method),
        scope=resolve_scope(params.prune.method, params.prune.scope),
        prune=params.prune,
        recovery=params.recover,
        rows={name: f"{measured[key]:,}" for key, name in _NAMES.items() if key in measured},
    )
