"""Tokens per second of the original, and of models that are pruned, pruned 2:4, and left without blocks, in one run.

python -m benchmarks.speed [--context 1024] [--new-tokens 32] [--pairs 3]

Needs `data/model` and `data/text` (`dvc repro download`). All models are dense in memory, zeros in place, on the device
and in the dtype of params.yaml. In turns, each reads a window of the text, and continues it greedily one token at a
time; figures are medians of the turns. GPUs with sparse tensor cores can compute 2:4 faster, by kernels of their own.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from stages.lib.files.places import MODEL, TEXT
from stages.lib.files.rows import SEPARATOR, read_rows
from stages.lib.inference.device import set_up
from stages.lib.inference.flops import flops_per_token
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
    return {"original": Path("data/original"), **{name: folder / name for name in (*pruned, fewer_blocks)}}


@torch.inference_mode()
def read(loaded: Loaded, tokens: torch.Tensor) -> None:
    loaded.model(input_ids=tokens, use_cache=False)


@torch.inference_mode()
def write(loaded: Loaded, tokens: torch.Tensor, count: int) -> None:
    prompt = tokens[:, :-count]
    loaded.model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        min_new_tokens=count,
        max_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
    )


def seconds(work: Callable[[], None], device: torch.device) -> float:
    started = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--context", type=int, default=1024, help="tokens that are read (default: 1024)")
    parser.add_argument("--new-tokens", type=int, default=32, help="tokens that are written (default: 32)")
    parser.add_argument("--pairs", type=int, default=3, help="how often each model runs (default: 3)")
    arguments = parser.parse_args()
    params, checkpoint = load_params(), Checkpoint(MODEL)
    device = set_up(params.compute, params.seed)
    with TemporaryDirectory() as folder:
        made = {name: materialize(checkpoint, path) for name, path in recipes(checkpoint, params, Path(folder)).items()}
    models = {name: ready(each, device) for name, each in made.items()}
    text = SEPARATOR.join(read_rows(TEXT, "test")["text"])
    ids = models["original"].tokenizer(text, truncation=True, max_length=arguments.context)["input_ids"]
    tokens = torch.tensor([ids[: arguments.context]], device=device.device)
    reading: dict[str, list[float]] = {name: [] for name in models}
    writing: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(arguments.pairs + 1):
        for name, loaded in models.items():
            reading[name].append(tokens.numel() / seconds(lambda loaded=loaded: read(loaded, tokens), device.device))
            took = seconds(lambda loaded=loaded: write(loaded, tokens, arguments.new_tokens), device.device)
            writing[name].append(arguments.new_tokens / took)
    table = {
        name: {
            "flops_per_token": flops_per_token(models[name], arguments.context),
            "reads_per_second": round(statistics.median(reading[name][1:])),  # the first turn warms up
            "writes_per_second": round(statistics.median(writing[name][1:]), 1),
            "reading_ratio": round(
                statistics.median(a / b for a, b in zip(reading[name][1:], reading["original"][1:], strict=True)), 2
            ),
            "writing_ratio": round(
                statistics.median(a / b for a, b in zip(writing[name][1:], writing["original"][1:], strict=True)), 2
            ),
        }
        for name in models
    }
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
