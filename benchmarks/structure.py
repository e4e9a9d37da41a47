"""Read the structure of a model of 70 billion parameters here, and build it empty by accelerate, in one run.

python -m benchmarks.structure [--pairs N]

Each side runs in a process of its own, in turns; seconds and memory are those after the imports, medians of the turns.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

CONFIG = {  # of Llama 3 70B
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}


def here() -> Callable[[], int]:
    from stages.lib.weights.module_tree import structure_of

    def read() -> int:
        structure = structure_of(CONFIG, "config.json")
        return sum(matrix.size for matrix in structure.all_matrices)

    return read


def peer() -> Callable[[], int]:
    from accelerate import init_empty_weights
    from torch import nn
    from transformers import AutoConfig, AutoModelForCausalLM

    def build() -> int:
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**CONFIG))
        return sum(layer.weight.numel() for layer in model.model.layers.modules() if isinstance(layer, nn.Linear))

    return build


SIDES = {"here": here, "peer": peer}


def measured(side: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-m", __spec__.name, "--side", side], capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def run(side: str) -> None:
    work = SIDES[side]()
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    weights = work()
    took, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"weights": weights, "seconds": took, "megabytes": (after - before) / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.structure", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=3, help="how often each side runs (default: 3)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run(arguments.side)
        return
    turns: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.pairs):
        for side, found in turns.items():
            found.append(measured(side))
    table = {
        side: {key: round(statistics.median(turn[key] for turn in found), 2) for key in found[0]}
        for side, found in turns.items()
    }
    print(json.dumps({**table, "ratio": round(table["peer"]["seconds"] / table["here"]["seconds"], 2)}))


if __name__ == "__main__":
    main()
