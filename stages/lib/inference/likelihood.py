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
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm
from transformers.utils import ModelOutput

from stages.lib.files.errors import UserError
from stages.lib.files.rows import SEPARATOR
from stages.lib.inference.batches import by_length, pad
from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded, replaced_forward
from stages.lib.inference.tokenizing import first_tokens, room_for_text

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Perplexity

Tokens = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]

LOGITS_AT_ONCE = 1 << 23
"""How many logits are held at once: 32 MiB of float32, instead of 200 MB for a window of SmolLM2."""


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


def negative_log_likelihoods(
    loaded: Loaded, text: TokenizedText, settings: "Perplexity"
) -> tuple[Losses, npt.NDArray[np.bool_]]:
    """Each token's negative log-likelihood in nats, and whether it is scored; 0 where not. Both of shape (tokens,).

    Raises UserError if the text is shorter than a window, a window longer than the model takes or without room for
    the text, or a loss not finite.
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
    parts = losses_within(
        loaded,
        [text.within(window) for window in plan],
        [len(text.first) + window.scored - window.begin for window in plan],
        settings.batch_size,
    )
    losses, scored = np.zeros(count), np.zeros(count, dtype=np.bool_)
    for window, part in zip(plan, parts, strict=True):
        losses[window.scored : window.end], scored[window.scored : window.end] = part, True
    return losses, scored


@torch.inference_mode()
def losses_within(loaded: Loaded, sequences: Sequence[Tokens], firsts: Sequence[int], batch_size: int) -> list[Losses]:
    """The negative log-likelihoods, in nats, of each sequence's tokens from `firsts` (1 or more) on.

    Raises UserError if one is not finite, with the number of its sequence, a window of the text, from 0.
    Sequences of similar length share a batch. They are padded on the right, which no token of a causal model attends
    to, so a batch changes nothing but the speed.
    """
    found: list[Losses] = [np.empty(0)] * len(sequences)
    scored = [len(sequence) - first for sequence, first in zip(sequences, firsts, strict=True)]
    with tqdm(total=sum(scored), unit="tok", desc="perplexity") as progress:
        lengths = [len(sequence) for sequence in sequences]
        for batch in by_length(lengths, 1 if loaded.lengths_matter else batch_size):
            # The state before a token predicts it, so the last one is not read.
            inputs, _ = pad([sequences[index][:-1] for index in batch], 0, "right")
            output = loaded.body(input_ids=inputs.to(loaded.device), use_cache=False)
            hidden = output.last_hidden_state
            states = [hidden[row, firsts[index] - 1 : len(sequences[index]) - 1] for row, index in enumerate(batch)]
            wanted = torch.from_numpy(np.concatenate([sequences[index][firsts[index] :] for index in batch]))
            losses = _cross_entropies(loaded, output, torch.cat(states), wanted.to(loaded.device))
            ends = np.cumsum([scored[index] for index in batch])
            for index, part in zip(batch, np.split(losses, ends[:-1]), strict=True):
                check_finite(torch.from_numpy(part), f"the losses of window {index}", loaded.runs_on.dtype)
                found[index] = part
            progress.update(len(losses))
    return found


def _cross_entropies(loaded: Loaded, output: ModelOutput, states: torch.Tensor, wanted: torch.Tensor) -> Losses:
    """Cross entropies of the wanted tokens, computed for some states at a time.

    The model itself makes logits of states, since some scale or cap them: it is given `output`, the body's, with other
    states in place of a pass of the body. Shapes: (tokens, hidden) and (tokens,).
    """
    step = max(1, LOGITS_AT_ONCE // loaded.model.get_output_embeddings().weight.shape[0])
    losses = []
    with replaced_forward([loaded.body], lambda *arguments, **named: output):
        for some, tokens in zip(torch.split(states, step), torch.split(wanted, step), strict=True):
            output.last_hidden_state = some[None]
            logits = loaded.model(input_ids=tokens[None], use_cache=False).logits[0].float()
            # By `cross_entropy`, the sums over a large vocabulary would be too small by some 1e-5 in float32.
            losses.append(logits.logsumexp(dim=1) - logits.gather(1, tokens[:, None]).squeeze(1))
    found: Losses = torch.cat(losses).cpu().double().numpy()
    return found
