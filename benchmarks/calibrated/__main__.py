"""Wanda and SparseGPT against llmcompressor's on the same model and calibration text, in one run.

python -m venv peer && peer/bin/pip install -r benchmarks/calibrated/requirements.txt
python -m benchmarks.calibrated --peer peer/bin/python

Needs `data/model` and `data/text`, which `dvc repro download` brings. Both prune in float32 on the
same windows; loading is not timed. Half of the weights go, where both mean the same by it: in each
row for Wanda, in each 128 columns for SparseGPT, or by the pattern 2:4.
"""

import argparse
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import load_file, save_file

from stages.lib.evaluation.perplexity import score
from stages.lib.figures.definitions import figures_of
from stages.lib.files.places import MODEL, TEXT, written_recipe
from stages.lib.files.rows import read_rows, unscored_documents
from stages.lib.inference.calibration import WINDOW, calibration_windows
from stages.lib.inference.device import set_up
from stages.lib.inference.loading import Loaded, load_original
from stages.lib.plumbing.params import Params, load_params
from stages.lib.pruning.calibrated import calibrated_masks
from stages.lib.pruning.methods import method_named
from stages.lib.recipes.choosing import shared_by_matrices
from stages.lib.reporting.exporting import export
from stages.lib.weights.checkpoint import Checkpoint

ORIGINAL = written_recipe("original")

SETTINGS: tuple[tuple[str, str, str], ...] = (
    ("wanda", "row", "0:0"),
    ("wanda", "2:4", "2:4"),
    ("sparsegpt", "layer", "0:0"),
)
"""Our method and scope, and llmcompressor's mask structure."""


@dataclass(frozen=True)
class Side:
    """What one of the two made of the model."""

    seconds: float
    perplexity: float
    weights: dict[str, torch.Tensor]


def ours(params: Params, windows: Sequence[torch.Tensor], method: str, scope: str) -> tuple[float, Loaded]:
    loaded = load_original(Checkpoint(MODEL), set_up(params.compute, params.seed))
    checkpoint = loaded.checkpoint
    half = sum(map(checkpoint.size, checkpoint.structure.weights([0]))) // 2
    on_text = method_named(method).on_text
    assert on_text is not None
    started = time.monotonic()
    counts = shared_by_matrices([half] * checkpoint.structure.depth, checkpoint.structure.matrices)
    for _ in calibrated_masks(loaded, windows, counts, on_text, scope):
        pass
    return time.monotonic() - started, loaded


def theirs(peer: str, folder: Path, method: str, structure: str, params: Params) -> tuple[float, Loaded]:
    out = folder / "pruned.safetensors"
    script = Path(__file__).parent / "peer.py"
    arguments = [str(folder / "model"), str(folder / "windows.safetensors"), method, "0.5", structure, str(out)]
    done = subprocess.run([peer, str(script), *arguments], capture_output=True, text=True, check=True)
    loaded = load_original(Checkpoint(MODEL), set_up(params.compute, params.seed))
    for name, weight in load_file(out).items():
        loaded.model.get_parameter(name).data.copy_(weight)
    return float(done.stdout.splitlines()[-1]), loaded


def side(seconds: float, loaded: Loaded, params: Params) -> Side:
    scores = score(loaded, read_rows(TEXT, "test")["text"].tolist(), params.perplexity)
    perplexity = figures_of("perplexity", scores, params.statistics.resamples, params.seed)["perplexity"]
    return Side(
        seconds,
        perplexity,
        {name: loaded.model.get_parameter(name).data for name in loaded.checkpoint.structure.prunable},
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrated", description=__doc__)
    parser.add_argument("--peer", required=True, help="the python of an environment with llmcompressor")
    parser.add_argument("--windows", type=int, default=8, help=f"of {WINDOW} tokens of calibration text (default: 8)")
    arguments = parser.parse_args()
    params = load_params()
    original = load_original(Checkpoint(MODEL), set_up(params.compute, params.seed))
    windows = calibration_windows(original, unscored_documents(TEXT), WINDOW * arguments.windows, "--windows")
    print("method, scope | seconds, ours | llmcompressor | ratio | masks that agree | perplexity, ours | llmcompressor")
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "model").mkdir()
        export(MODEL, ORIGINAL, folder / "model")
        save_file({"windows": torch.cat(list(windows))}, folder / "windows.safetensors")
        for method, scope, structure in SETTINGS:
            one = side(*ours(params, windows, method, scope), params)
            other = side(*theirs(arguments.peer, folder, method, structure, params), params)
            same = sum(int(((w == 0) == (other.weights[name] == 0)).sum()) for name, w in one.weights.items())
            share = same / sum(weight.numel() for weight in one.weights.values())
            print(
                f"{method}, {scope} | {one.seconds:.1f} | {other.seconds:.1f} | {other.seconds / one.seconds:.2f} | "
                f"{share:.4%} | {one.perplexity:.2f} | {other.perplexity:.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
