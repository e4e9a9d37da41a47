"""Score the embedded study's text with this project and with lm-eval, in one run.

pip install -r benchmarks/requirements.txt && python -m benchmarks.perplexity

Needs `data/model` and `data/text` (`dvc repro download`). The same model object scores the same
documents on both sides, in turns. lm-eval puts a prefix token before each document and moves its
windows of 1024 by 1024, with one token of overlap; here that is the same token put first, a context
of 1025 and a stride of 1024. Documents are whole windows long, since the two sides treat a shorter
last window differently.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from stages.lib.compute import set_up
from stages.lib.corpora.rows import read_rows
from stages.lib.models import Loaded, load
from stages.lib.params import Perplexity, load_params
from stages.lib.perplexity import SEPARATOR, TokenizedText, negative_log_likelihoods

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


def score_here(loaded: Loaded, documents: list[str], prefix: int) -> list[float]:
    """Each document's log-likelihood, in nats."""
    settings = Perplexity(context=WINDOW + 1, stride=WINDOW, batch_size=1)
    found = []
    for document in documents:
        tokens = np.array([prefix, *loaded.tokenizer(document)["input_ids"]])
        text = TokenizedText(tokens, np.zeros_like(tokens), np.zeros_like(tokens))
        found.append(-float(np.nansum(negative_log_likelihoods(loaded, text, settings))))
    return found


def score_there(peer: HFLM, documents: list[str]) -> list[float]:
    requests = [
        Instance(request_type="loglikelihood_rolling", doc={}, arguments=(document,), idx=number)
        for number, document in enumerate(documents)
    ]
    return peer.loglikelihood_rolling(requests, disable_tqdm=True)


def operations_a_token(loaded: Loaded) -> float:
    """Floating-point operations in matrix products: weights, and the causal half of the attention."""
    config = loaded.model.config
    head = loaded.model.get_output_embeddings().weight
    matrices = sum(p.numel() for p in loaded.body.parameters() if p.ndim == 2 and p is not head)
    attention = config.num_hidden_layers * 2 * WINDOW * config.num_attention_heads * config.head_dim
    return 2 * (matrices + head.numel()) + attention


def matrix_product_rate(size: int = 2048, repetitions: int = 10) -> float:
    """The machine's operations a second in a plain float32 product of square matrices, the best of several."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(repetitions):
        started = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.perplexity", description=__doc__.split("\n")[0])
    parser.add_argument("--documents", type=int, default=6, help="documents of 2048 tokens (default: 6)")
    parser.add_argument("--pairs", type=int, default=3, help="how often each side runs (default: 3)")
    arguments = parser.parse_args()
    params = load_params()
    loaded = load(Path("data/model"), Path("data/original"), set_up(params.compute, params.seed))
    text = SEPARATOR.join(read_rows(Path("data/text"), "test")["text"])
    documents = documents_of_whole_windows(loaded, text, arguments.documents)
    peer = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, max_length=WINDOW, batch_size=1)
    tokens = len(documents) * WINDOW * WINDOWS_A_DOCUMENT
    here, there, rates = [], [], []
    for _ in range(arguments.pairs):
        started = time.perf_counter()
        scores_here = score_here(loaded, documents, peer.prefix_token_id)
        here.append(tokens / (time.perf_counter() - started))
        started = time.perf_counter()
        scores_there = score_there(peer, documents)
        there.append(tokens / (time.perf_counter() - started))
        rates.append(matrix_product_rate())
    shares = [speed * operations_a_token(loaded) / rate for speed, rate in zip(here, rates, strict=True)]
    result = {
        "documents": len(documents),
        "tokens": tokens,
        "log_likelihood_here": round(sum(scores_here), 3),
        "log_likelihood_lm_eval": round(sum(scores_there), 3),
        "largest_relative_difference": float(f"{np.max(np.abs(np.divide(scores_here, scores_there) - 1)):.2g}"),
        "tokens_a_second_here": [round(speed) for speed in here],
        "tokens_a_second_lm_eval": [round(speed) for speed in there],
        "times_faster": round(statistics.median(a / b for a, b in zip(here, there, strict=True)), 2),
        "matrix_product_gflops": [round(rate / 1e9) for rate in rates],
        "share_of_matrix_product_rate": round(statistics.median(shares), 2),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
