"""Score the study's text with the pruned model, with and without its distance to the original, in one run.

python -m benchmarks.distance [--tokens 4096] [--pairs 3]

Needs `data/model`, `data/text` and `data/pruned` (`dvc repro prune`). Both passes run in turns. The divergences of the
first window are compared with a plain loop over the logits of both models, in float64.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.nn import functional

from stages.lib.evaluation.perplexity import score_original, score_text
from stages.lib.files.places import MODEL, TEXT, written_recipe
from stages.lib.files.rows import read_rows
from stages.lib.inference.device import set_up
from stages.lib.inference.final_states import OriginalStates
from stages.lib.inference.likelihood import tokenize
from stages.lib.inference.loading import Loaded, load_original, ready
from stages.lib.plumbing.params import load_params
from stages.lib.recipes.recipe import materialize
from stages.lib.weights.checkpoint import Checkpoint


@torch.inference_mode()
def divergences(original: Loaded, model: Loaded, tokens: torch.Tensor) -> torch.Tensor:
    """KL(original ‖ model) at each token of a window but the first."""
    before, after = (each.model(tokens, use_cache=False).logits[0, :-1].double() for each in (original, model))
    return functional.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="none").sum(-1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distance", description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4096, help="tokens that are scored (default: 4096)")
    parser.add_argument("--pairs", type=int, default=3, help="how often each side runs (default: 3)")
    arguments = parser.parse_args()
    params, checkpoint = load_params(), Checkpoint(MODEL)
    device = set_up(params.compute, params.seed)
    original, pruned = (
        load_original(checkpoint, device),
        ready(materialize(checkpoint, written_recipe("pruned")), device),
    )
    text = tokenize(original.tokenizer, read_rows(TEXT, "test")["text"].tolist()).head(arguments.tokens)
    turns: dict[str, list[float]] = {"without": [], "with": []}
    with TemporaryDirectory() as folder:
        score_original(original, text, params.perplexity, Path(folder) / "states")
        states = OriginalStates(Path(folder) / "states", checkpoint, device)
        score_text(pruned, text, params.perplexity, states)  # to warm up
        for _ in range(arguments.pairs):
            for side, given in (("without", None), ("with", states)):
                started = time.perf_counter()
                table = score_text(pruned, text, params.perplexity, given)
                turns[side].append(time.perf_counter() - started)
    (window, *_) = text.windows(params.perplexity)
    expected = divergences(original, pruned, torch.from_numpy(text.within(window))[None].to(device.device))
    found = torch.from_numpy(table.loc[table["window"] == 0, "kl"].to_numpy())
    result = {
        "tokens": len(table),
        **{f"seconds_{side}": round(statistics.median(taken), 2) for side, taken in turns.items()},
        "ratio": round(statistics.median(b / a for a, b in zip(*turns.values(), strict=True)), 3),
        "kl_divergence": float(table["kl"].mean()),
        "largest_difference_from_a_plain_loop": float(
            (found - expected.cpu()[max(0, len(text.first) - 1) :]).abs().max()
        ),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
