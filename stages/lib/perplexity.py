"""Perplexity of a text in sliding windows, and bits per byte beside it.

The text's documents are joined by `SEPARATOR` and tokenized as a whole. Windows of `context`
tokens start every `stride` tokens. Each window scores the tokens that no window before it has
reached, given all that precede them in the window; the first token of a window, which nothing
precedes, is not scored there. So every scored token is counted once, and there is no padding.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.nn import functional
from tqdm import tqdm

from stages.lib.artifacts import significant, write_json
from stages.lib.errors import UserError
from stages.lib.models import Loaded
from stages.lib.params import Perplexity
from stages.lib.predictions import write_predictions

SEPARATOR = "\n\n"

LOGITS_AT_ONCE = 1 << 21
"""How many logits are held at once: 8 MiB of float32, against 200 MB for a window of SmolLM2."""


@dataclass(frozen=True)
class TokenizedText:
    """A text as tokens, and where each of them comes from."""

    tokens: npt.NDArray[np.int64]
    byte_counts: npt.NDArray[np.int64]
    """The UTF-8 bytes that each token adds to the text; their sum is the text's size."""
    document: npt.NDArray[np.int64]
    """The number of the document in which each token ends."""


@dataclass(frozen=True)
class Window:
    """Tokens `begin` to `end`, of which those from `scored` on are scored."""

    begin: int
    end: int
    scored: int


def tokenize(tokenizer: object, documents: Sequence[str]) -> TokenizedText:
    """Tokenize documents as one text, special tokens as the tokenizer adds them."""
    text = SEPARATOR.join(documents)
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)  # type: ignore[operator]
    # A character may be split over several tokens: the first that reaches its end gets its bytes.
    ends = np.maximum.accumulate(np.array([end for _, end in encoded["offset_mapping"]], dtype=np.int64))
    ends[-1:] = len(text)  # some tokenizers leave white space out of a token's offsets
    sizes = np.fromiter((len(character.encode()) for character in text), dtype=np.int64, count=len(text))
    bytes_upto = np.concatenate([[0], np.cumsum(sizes)])[ends]
    starts = np.cumsum([0] + [len(document) + len(SEPARATOR) for document in documents])
    return TokenizedText(
        tokens=np.array(encoded["input_ids"], dtype=np.int64),
        byte_counts=np.diff(bytes_upto, prepend=0),
        document=np.minimum(np.searchsorted(starts, ends - 1, side="right") - 1, len(documents) - 1),
    )


def windows(tokens: int, context: int, stride: int) -> Iterator[Window]:
    """The windows over a text of that many tokens, in order."""
    reached = 0
    for begin in range(0, tokens, stride):
        end = min(begin + context, tokens)
        if end - begin > 1:
            yield Window(begin, end, max(reached, begin + 1))
        reached = end
        if end == tokens:
            return


@torch.inference_mode()
def negative_log_likelihoods(loaded: Loaded, text: TokenizedText, settings: Perplexity) -> npt.NDArray[np.float64]:
    """Each token's negative log-likelihood in nats; NaN where it is not scored. Shape: (tokens,).

    Raises UserError if the text is shorter than a window or a window longer than the model takes.
    """
    count, context = len(text.tokens), settings.context
    if context > loaded.context_length:
        raise UserError(
            f"perplexity.context is {context}, the model takes {loaded.context_length} tokens; lower it in params.yaml"
        )
    if count < context:
        raise UserError(
            f"the scored text has {count} tokens, fewer than a window of {context}; "
            "give a longer text, or lower perplexity.context in params.yaml"
        )
    losses = np.full(count, np.nan)
    tokens = torch.from_numpy(text.tokens)
    plan = list(windows(count, context, settings.stride))
    with tqdm(total=sum(w.end - w.scored for w in plan), unit="tok", desc="perplexity") as progress:
        for batch in _batches(plan, settings.batch_size):
            inputs = torch.stack([tokens[w.begin : w.end] for w in batch]).to(loaded.device)
            hidden = loaded.body(input_ids=inputs, use_cache=False).last_hidden_state
            for window, states in zip(batch, hidden, strict=True):
                wanted = tokens[window.scored : window.end].to(loaded.device)
                # The state before a token predicts it.
                predicting = states[window.scored - window.begin - 1 : -1]
                losses[window.scored : window.end] = _losses(loaded, predicting, wanted)
                progress.update(window.end - window.scored)
    return losses


def _batches(plan: list[Window], batch_size: int) -> Iterator[list[Window]]:
    """Windows of one length together: nothing is padded."""
    for _, group in itertools.groupby(plan, key=lambda window: window.end - window.begin):
        yield from (list(batch) for batch in _chunked(group, batch_size))


def _chunked(group: Iterator[Window], size: int) -> Iterator[tuple[Window, ...]]:
    while batch := tuple(itertools.islice(group, size)):
        yield batch


def _losses(loaded: Loaded, states: torch.Tensor, wanted: torch.Tensor) -> npt.NDArray[np.float64]:
    """Cross entropies of the wanted tokens, a slice of the vocabulary's logits at a time.

    Slices of the vocabulary, not of the positions: so each weight of the head is read once a window.
    """
    head = loaded.model.get_output_embeddings()
    vocabulary = head.weight.shape[0]
    step = min(vocabulary, max(1, LOGITS_AT_ONCE // len(wanted)))
    normalizer = torch.full(wanted.shape, -torch.inf, device=states.device)
    logit = torch.empty_like(normalizer)
    for start in range(0, vocabulary, step):
        part = slice(start, start + step)
        logits = functional.linear(states, head.weight[part], None if head.bias is None else head.bias[part]).float()
        normalizer = torch.logaddexp(normalizer, logits.logsumexp(dim=1))
        here = (wanted >= start) & (wanted < start + step)
        logit[here] = logits[here, wanted[here] - start]
    return (normalizer - logit).double().cpu().numpy()


@dataclass(frozen=True)
class Scores:
    """Sums over the scored tokens of each document in each window: what intervals are made from.

    Columns of `table`: document, window, tokens, bytes, nll (in nats).
    """

    table: pd.DataFrame

    @property
    def tokens(self) -> int:
        return int(self.table["tokens"].sum())

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood per scored token."""
        return math.exp(self.table["nll"].sum() / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """The same likelihood per UTF-8 byte of the scored tokens: comparable between tokenizers."""
        return float(self.table["nll"].sum() / math.log(2) / self.table["bytes"].sum())

    def save(self, predictions: Path, metrics: Path) -> None:
        """Write the table, and the figures that it comes to."""
        write_predictions(predictions, self.table)
        write_json(
            metrics,
            {
                "perplexity": significant(self.perplexity),
                "bits_per_byte": significant(self.bits_per_byte),
                "tokens": self.tokens,
            },
        )


def score(loaded: Loaded, documents: Sequence[str], settings: Perplexity) -> Scores:
    """Score documents, joined to one text. Raises as `negative_log_likelihoods` does."""
    text = tokenize(loaded.tokenizer, documents)
    losses = negative_log_likelihoods(loaded, text, settings)
    window = np.zeros(len(losses), dtype=np.int64)
    for number, part in enumerate(windows(len(losses), settings.context, settings.stride)):
        window[part.scored : part.end] = number
    table = pd.DataFrame(
        {"document": text.document, "window": window, "tokens": 1, "bytes": text.byte_counts, "nll": losses}
    )
    return Scores(table[~np.isnan(losses)].groupby(["document", "window"], as_index=False).sum())
