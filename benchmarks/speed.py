"""Tokens per second of the original, and of models that are pruned, pruned 2:4, and left without blocks, in one run.

python -m benchmarks.speed [--context 1024] [--new-tokens 32] [--turns 3]

Needs `data/model` and `data/text` (`dvc repro download`). Pruning is by magnitude, at the sparsity of params.yaml and
2:4. All models are dense in memory, zeros in place, on the device and in the dtype of params.yaml. In turns, each reads
a window of the text, and then continues it greedily, one token at a time; only the latter is timed as writing. Figures
are medians of the turns. GPUs with sparse tensor cores can compute 2:4 faster, by kernels of their own.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from stages.lib.files.places import MODEL, TEXT, written_recipe
from stages.lib.files.rows import read_rows
from stages.lib.inference.device import set_up
from stages.lib.inference.flops import flops_per_token
from stages.lib.inference.likelihood import tokenize
from stages.lib.inference.loading import Loaded, ready
from stages.lib.plumbing.params import Params, load_params
from stages.lib.pruning.prune import prune
from stages.lib.recipes.recipe import materialize
from stages.lib.shrinking.shrink import write_variants
from stages.lib.weights.checkpoint import Checkpoint


def recipes(checkpoint: Checkpoint, params: Params, folder: Path) -> dict[str, Path]:
    """The folder of each model's recipe, by name."""
    pruned = {"pruned": {"method": "magnitude", "scope": "global"}, "2:4": {"method": "magnitude", "scope": "2:4"}}
    for name, chosen in pruned.items():
        sparsity = 0.5 if name == "2:4" else params.prune.sparsity
        settings = params.prune.model_copy(update={**chosen, "budget": "uniform", "sparsity": sparsity})
        (folder / name).mkdir()
        prune(checkpoint, params.model_copy(update={"prune": settings}), folder / name)
    fewer_blocks = f"compressed_{min(4, checkpoint.structure.depth)}"
    compare = params.compare.model_copy(update={"variants": [fewer_blocks]})
    write_variants(params.model_copy(update={"compare": compare}), folder)
    return {"original": written_recipe("original"), **{name: folder / name for name in (*pruned, fewer_blocks)}}


class Turns:
    """The seconds of one model's turns."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.reading: list[float] = []
        self.writing: list[float] = []

    @torch.inference_mode()
    def take(self, tokens: torch.Tensor, new_tokens: int) -> None:
        """Read all tokens, and write some more behind them."""
        started = self._now()
        output = self.loaded.model(input_ids=tokens, use_cache=True)
        self.reading.append(self._now() - started)
        started = self._now()
        for _ in range(new_tokens):
            last = output.logits[:, -1:].argmax(dim=-1)
            output = self.loaded.model(input_ids=last, past_key_values=output.past_key_values, use_cache=True)
        self.writing.append(self._now() - started)

    def _now(self) -> float:
        if self.loaded.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


def ratio(of: list[float], to: list[float]) -> float:
    """How many times as fast, as the median over the turns."""
    return round(statistics.median(b / a for a, b in zip(of, to, strict=True)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=1024, help="tokens that are read (default: 1024)")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens that are written (default: 32)")
    parser.add_argument("--turns", type=int, default=3, help="how often each model runs (default: 3)")
    arguments = parser.parse_args()
    params, checkpoint = load_params(), Checkpoint(MODEL)
    device = set_up(params.compute, params.seed)
    with TemporaryDirectory() as folder:
        made = {name: materialize(checkpoint, path) for name, path in recipes(checkpoint, params, Path(folder)).items()}
    models = {name: Turns(ready(each, device)) for name, each in made.items()}
    original = models["original"]
    longest = original.loaded.context_length - arguments.new_tokens
    text = tokenize(original.loaded.tokenizer, read_rows(TEXT, "test")["text"].tolist()).tokens[: arguments.context]
    if len(text) < arguments.context or arguments.context > longest:
        parser.error(
            f"--context: the text has {len(text):,} tokens, and the model takes {longest:,} before the new ones"
        )
    tokens = torch.from_numpy(text)[None].to(device.device)
    for _ in range(arguments.turns + 1):
        for model in models.values():
            model.take(tokens, arguments.new_tokens)
    for model in models.values():
        del model.reading[0], model.writing[0]  # the first turn warms up
    table = {
        name: {
            "flops_per_token": flops_per_token(model.loaded, arguments.context),
            "reads_per_second": round(arguments.context / statistics.median(model.reading)),
            "writes_per_second": round(arguments.new_tokens / statistics.median(model.writing), 1),
            "reading_ratio": ratio(model.reading, original.reading),
            "writing_ratio": ratio(model.writing, original.writing),
        }
        for name, model in models.items()
    }
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
