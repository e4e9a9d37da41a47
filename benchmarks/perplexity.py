"""Score the embedded study's text with this project and with lm-eval, in one run.

pip install -r benchmarks/requirements.txt && python -m benchmarks.perplexity

Needs `data/model` and `data/text` (`dvc repro download`). The same model object scores the same
tokens of the same documents on both sides, in turns: first editorials, each shorter than a window
and scored apart, then long documents in windows of 1024. lm-eval puts a prefix token before each
document, and moves its windows by 1024 with one token of overlap; here that is the same token put
first, and windows of 1025. Long documents are whole windows long, since the two sides treat a
shorter last window differently. lm-eval runs with the batch size that is fastest for it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from stages.lib.files.rows import read_rows
from stages.lib.inference.device import set_up
from stages.lib.inference.likelihood import SEPARATOR, losses_within
from stages.lib.inference.loading import Loaded, load_original
from stages.lib.plumbing.params import load_params
from stages.lib.weights.checkpoint import Checkpoint

WINDOW = 1024
WINDOWS_A_DOCUMENT = 2


def documents_of_whole_windows(loaded: Loaded, text: str, count: int) -> list[str]:
    """Consecutive pieces of a text, each of which is exactly WINDOWS_A_DOCUMENT windows of tokens."""
    length = WINDOW * WINDOWS_A_DOCUMENT
    found: list[str] = []
    start = 0
    while len(found) < count:
        ends = [end for _, end in loaded.tokenizer(text[start:], return_offsets_mapping=True)["offset_mapping"]]
        piece = text[start : start + ends[length - 1]]
        if len(loaded.tokenizer(piece)["input_ids"]) == length:
            found.append(piece)
            start += len(piece)
        else:
            start += ends[0]  # the cut split a word into other tokens: try one token further
    return found


def score_here(loaded: Loaded, documents: list[str], prefix: int, batch_size: int) -> list[float]:
    """Each document's log-likelihood, in nats."""
    tokens = [np.array([prefix, *ids]) for ids in loaded.tokenizer(documents)["input_ids"]]
    pieces = [
        (number, sequence[begin : begin + WINDOW + 1])
        for number, sequence in enumerate(tokens)
        for begin in range(0, len(sequence) - 1, WINDOW)
    ]
    found = np.zeros(len(documents))
    losses = losses_within(loaded, [piece for _, piece in pieces], [1] * len(pieces), batch_size)
    for (number, _), part in zip(pieces, losses, strict=True):
        found[number] -= part.sum()
    return found.tolist()


def score_there(peer: HFLM, documents: list[str]) -> list[float]:
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(document,), idx=number)
        for number, document in enumerate(documents)
    ]
    return peer.loglikelihood_rolling(requests, disable_tqdm=True)


def operations(loaded: Loaded, lengths: list[int]) -> float:
    """Floating-point operations in matrix products: of the weights, and of the attention's causal half."""
    config = loaded.model.config
    head = loaded.model.get_output_embeddings().weight
    matrices = sum(p.numel() for p in loaded.body.parameters() if p.ndim == 2 and p is not head)
    width = config.num_hidden_layers * config.num_attention_heads * config.head_dim
    return sum(2 * length * (matrices + head.numel()) + 2 * length**2 * width for length in lengths)


def matrix_product_rate(size: int = 2048, repetitions: int = 10) -> float:
    """The machine's operations a second in a plain float32 product of square matrices, the best of several."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repetitions):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def compare(loaded: Loaded, documents: list[str], batch_size: int, pairs: int) -> dict[str, Any]:
    """Both sides on the same documents, in turns."""
    lengths = [len(ids) for ids in loaded.tokenizer(documents)["input_ids"]]
    windows = [min(WINDOW, length - begin) for length in lengths for begin in range(0, length, WINDOW)]
    peers = {
        size: HFLM(loaded.model, tokenizer=loaded.tokenizer, max_length=WINDOW, batch_size=size) for size in (1, 4)
    }
    here, there, shares = [], [], []
    for _ in range(pairs):
        rate = matrix_product_rate()
        started = time.perf_counter()
        scores_here = score_here(loaded, documents, peers[1].prefix_token_id, batch_size)
        here.append(time.perf_counter() - started)
        shares.append(operations(loaded, windows) / here[-1] / rate)
        tries = []
        for peer in peers.values():
            started = time.perf_counter()
            scores_there = score_there(peer, documents)
            tries.append(time.perf_counter() - started)
        there.append(min(tries))
    return {
        "documents": len(documents),
        "tokens": sum(lengths),
        "log_likelihood_here": round(sum(scores_here), 3),
        "log_likelihood_lm_eval": round(sum(scores_there), 3),
        "largest_relative_difference": float(f"{np.max(np.abs(np.divide(scores_here, scores_there) - 1)):.2g}"),
        "tokens_a_second_here": [round(sum(lengths) / seconds) for seconds in here],
        "tokens_a_second_lm_eval": [round(sum(lengths) / seconds) for seconds in there],
        "times_faster": round(statistics.median(b / a for a, b in zip(here, there, strict=True)), 2),
        "share_of_matrix_product_rate": round(statistics.median(shares), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.perplexity", description=__doc__.split("\n")[0])
    parser.add_argument("--editorials", type=int, default=24, help="documents scored apart (default: 24)")
    parser.add_argument("--long", type=int, default=4, help="documents of 2048 tokens (default: 4)")
    parser.add_argument("--pairs", type=int, default=3, help="how often each side runs (default: 3)")
    arguments = parser.parse_args()
    params = load_params()
    loaded = load_original(Checkpoint(Path("data/model")), set_up(params.compute, params.seed))
    editorials = read_rows(Path("data/text"), "test")["text"].tolist()
    long = documents_of_whole_windows(loaded, SEPARATOR.join(editorials), arguments.long)
    result = {
        "editorials": compare(loaded, editorials[: arguments.editorials], 4, arguments.pairs),
        "long": compare(loaded, long, 1, arguments.pairs),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
