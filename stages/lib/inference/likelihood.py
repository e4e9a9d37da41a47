"""Token likelihoods of a text in sliding windows.

The text's documents are joined by `SEPARATOR` and tokenized as a whole. Windows of `context`
tokens start every `stride` tokens. Each window scores the tokens that no earlier window has reached, given all that
precede them in the window; the first token of a window, which nothing precedes, is not scored there. So every scored
token counts once, and there is no padding.

Special tokens that the tokenizer puts before a text come first in every window, since the model was trained to read
them there. They take up room in the window and are never scored; the text's tokens behind them all are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.files.rows import SEPARATOR
from stages.lib.inference.batches import by_length, pad
from stages.lib.inference.device import check_finite
from stages.lib.inference.final_states import OriginalStates, logits_of, vocabulary
from stages.lib.inference.loading import Loaded
from stages.lib.inference.tokenizing import first_tokens, room_for_text

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Perplexity

Tokens = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]

LOGITS_AT_ONCE = 1 << 23
"""How many logits of a model are held at once: 32 MiB of float32, instead of 200 MB for a window of SmolLM2."""

_NATS = {"nll": "losses", "kl": "divergences from the original"}


@dataclass(frozen=True)
class TokenizedText:
    """A text as tokens, the origin of each, and what comes before them in a window."""

    tokens: Tokens
    """The text's own; none that the tokenizer adds."""
    byte_counts: npt.NDArray[np.int64]
    """The UTF-8 bytes that each token adds to the text; their sum is the text's size."""
    document: npt.NDArray[np.int64]
    """The number of the document in which each token ends."""
    first: Tokens
    """The special tokens that come first in every window."""

    def head(self, tokens: int) -> "TokenizedText":
        """The first `tokens` tokens, or all if there are fewer."""
        return replace(
            self,
            tokens=self.tokens[:tokens],
            byte_counts=self.byte_counts[:tokens],
            document=self.document[:tokens],
        )

    def windows(self, settings: "Perplexity") -> "Iterator[Window]":
        """The windows over this text, in order."""
        return windows(len(self.tokens), settings.context, settings.stride, len(self.first))

    def within(self, window: "Window") -> Tokens:
        """All tokens of a window, the special ones included."""
        return np.concatenate([self.first, self.tokens[window.begin : window.end]])


@dataclass(frozen=True)
class Window:
    """The text's tokens `begin` to `end`, of which those from `scored` on are scored."""

    begin: int
    end: int
    scored: int


def tokenize(tokenizer: object, documents: Sequence[str]) -> TokenizedText:
    """Tokenize documents as one text, apart from the special tokens that the tokenizer puts before it."""
    text = SEPARATOR.join(documents)
    encoded = tokenizer(  # type: ignore[operator]
        text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    # A character may be split over several tokens: the first one to reach its end gets its bytes.
    ends = np.maximum.accumulate(np.array([end for _, end in encoded["offset_mapping"]], dtype=np.int64))
    ends[-1:] = len(text)  # some tokenizers leave white space out of a token's offsets
    sizes = np.fromiter((len(character.encode()) for character in text), dtype=np.int64, count=len(text))
    bytes_upto = np.concatenate([[0], np.cumsum(sizes)])[ends]
    starts = np.cumsum([0] + [len(document) + len(SEPARATOR) for document in documents])
    return TokenizedText(
        tokens=np.array(encoded["input_ids"], dtype=np.int64),
        byte_counts=np.diff(bytes_upto, prepend=0),
        document=np.minimum(np.searchsorted(starts, ends - 1, side="right") - 1, len(documents) - 1),
        first=np.array(first_tokens(tokenizer), dtype=np.int64),
    )


def windows(tokens: int, context: int, stride: int, first: int = 0) -> Iterator[Window]:
    """The windows over a text of `tokens` tokens, in order, if each begins with `first` special tokens."""
    reached, room = 0, context - first
    for begin in range(0, tokens, min(stride, room)):  # a larger stride would skip tokens
        end = min(begin + room, tokens)
        scored = max(reached, begin if first else begin + 1)
        if scored < end:
            yield Window(begin, end, scored)
        reached = end
        if end == tokens:
            return


@dataclass(frozen=True)
class Scored:
    """Tokens of a sequence that are scored, and the final hidden states that predict them."""

    sequence: int
    """Its number: that of a window of the text, from 0."""
    tokens: torch.Tensor
    """Shape: (tokens,)."""
    states: torch.Tensor
    """Shape: (tokens, hidden)."""


def scored_windows(loaded: Loaded, text: TokenizedText, settings: "Perplexity") -> Iterator[Scored]:
    """The scored tokens of each of the text's windows, in the order in which they are computed.

    Raises UserError if the text is shorter than a window, or a window longer than the model takes or without room for
    the text.
    """
    count, context = len(text.tokens), settings.context
    if context > loaded.context_length:
        raise UserError(
            f"perplexity.context is {context}, the model takes {loaded.context_length} tokens; lower it in params.yaml"
        )
    room = room_for_text(context, len(text.first), "perplexity.context")
    if count < room:
        raise UserError(
            f"the scored text has {count} tokens, and a window of {context} takes {room}; "
            "give a longer text, or lower perplexity.context in params.yaml"
        )
    plan = list(text.windows(settings))
    firsts = [len(text.first) + window.scored - window.begin for window in plan]
    return scored_tokens(loaded, [text.within(window) for window in plan], firsts, settings.batch_size)


@torch.inference_mode()
def scored_tokens(
    loaded: Loaded, sequences: Sequence[Tokens], firsts: Sequence[int], batch_size: int
) -> Iterator[Scored]:
    """Each sequence's tokens from `firsts` (1 or more) on.

    Sequences of similar length share a batch. They are padded on the right, which no token of a causal model attends
    to, so a batch changes nothing but the speed.
    """
    lengths = [len(sequence) for sequence in sequences]
    with tqdm(total=sum(lengths) - sum(firsts), unit="tok", desc="perplexity") as progress:
        for batch in by_length(lengths, 1 if loaded.lengths_matter else batch_size):
            # The state before a token predicts it, so the last one is not read.
            inputs, _ = pad([sequences[index][:-1] for index in batch], 0, "right")
            hidden = loaded.body(input_ids=inputs.to(loaded.device), use_cache=False).last_hidden_state
            for row, index in enumerate(batch):
                first, length = firsts[index], lengths[index]
                yield Scored(index, torch.from_numpy(sequences[index][first:]), hidden[row, first - 1 : length - 1])
                progress.update(length - first)


@torch.inference_mode()
def predictions(loaded: Loaded, scored: Scored, original: OriginalStates | None = None) -> Columns:
    """What a model predicts at some scored tokens, with logits held for a slice of them at a time.

    Columns, all of shape (tokens,): nll (the tokens' negative log-likelihoods, in nats); with the original's states,
    also kl (KL(original ‖ model) over the whole vocabulary, in nats), top and original_top (the most likely token, of
    the model and of the original). Raises UserError if a figure is not finite.
    """
    step = max(1, LOGITS_AT_ONCE // vocabulary(loaded))
    states = original.of(scored.sequence) if original else scored.states
    slices: list[dict[str, torch.Tensor]] = []
    for begin in range(0, len(scored.tokens), step):
        part = slice(begin, begin + step)
        logits = logits_of(loaded, scored.states[part])
        # By `log_softmax`, the sums over a large vocabulary would be too small by some 1e-5 in float32.
        logits -= logits.logsumexp(dim=1, keepdim=True)
        found = {"nll": -logits.gather(1, scored.tokens[part, None].to(logits.device)).squeeze(1)}
        if original:
            dense = logits_of(original.head, states[part])
            dense -= dense.logsumexp(dim=1, keepdim=True)
            found |= {"top": logits.argmax(dim=1), "original_top": dense.argmax(dim=1)}
            torch.sub(dense, logits, out=logits)
            found["kl"] = torch.linalg.vecdot(dense.exp_(), logits).clamp(min=0)  # rounding may go below
        slices.append(found)
    columns = {key: torch.cat([found[key] for found in slices]).cpu() for key in slices[0]}
    for key in [key for key in _NATS if key in columns]:
        check_finite(columns[key], f"the {_NATS[key]} of window {scored.sequence}", loaded.runs_on.dtype)
        columns[key] = columns[key].double()  # sums of many are too coarse in float32
    return {key: column.numpy() for key, column in columns.items()}


def losses_within(loaded: Loaded, sequences: Sequence[Tokens], firsts: Sequence[int], batch_size: int) -> list[Losses]:
    """The negative log-likelihoods, in nats, of each sequence's tokens from `firsts` (1 or more) on.

    Raises UserError if one is not finite.
    """
    scored = scored_tokens(loaded, sequences, firsts, batch_size)
    found = {each.sequence: predictions(loaded, each)["nll"] for each in scored}
    return [found[sequence] for sequence in range(len(sequences))]
