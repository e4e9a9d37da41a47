"""A loaded model as lm-evaluation-harness asks it: the tokens that it reads, and those that are scored.

The harness either puts the tokenizer's special tokens around every text, and then scores them in a rolling
log-likelihood and an end of text in the middle of a prompt, or leaves out BOS before prompts as well. Here the rules of
stages/lib/inference/tokenizing.py hold: special tokens that the tokenizer puts before a text come first and are never
scored, those that it puts after one are dropped. Where the tokenizer puts none before a text, the harness still lets a
rolling log-likelihood and an empty prompt begin with BOS, or else EOS.
"""

import io
import sys
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from tqdm import tqdm

from stages.lib.files.errors import UserError
from stages.lib.inference.batches import ignores_pads, pad
from stages.lib.inference.device import check_finite
from stages.lib.inference.loading import Loaded


class HarnessModel(HFLM):  # type: ignore[misc]
    """A model for the harness, which runs in windows of the model's own context length."""

    def __init__(self, loaded: Loaded, batch_size: int) -> None:
        self._loaded = loaded
        self._windows: tqdm[Any] | None = None
        self._silent = bool(tqdm([], file=io.StringIO()).disable)  # the harness decides on its bars without asking tqdm
        first, tokenizer = loaded.first_tokens, loaded.tokenizer
        if not first and tokenizer.bos_token_id is None and tokenizer.eos_token_id is None:
            raise UserError("the tokenizer has neither BOS nor EOS, and lm-evaluation-harness needs one; add it")
        super().__init__(
            loaded.model,
            backend="causal",
            tokenizer=tokenizer,
            max_length=loaded.context_length if loaded.context_length < sys.maxsize else None,
            softmax_dtype=torch.float32,  # the harness's own is the model's, of three digits in bfloat16
            batch_size=1 if loaded.lengths_matter or not ignores_pads(loaded) else batch_size,
            prefix_token_id=first[-1] if first else None,
        )

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **named: Any,
    ) -> list[int]:
        first = self._loaded.first_tokens
        own: list[int] = self.tokenizer.encode(string, add_special_tokens=False, verbose=False)
        if add_special_tokens is False or self._windows is not None or own[: len(first)] == first:
            first = []  # a prompt may spell them out itself
        if left_truncate_len and len(first) + len(own) > left_truncate_len:
            own = own[-max(1, left_truncate_len - len(first)) :]
        return first + own

    def tok_batch_encode(
        self,
        strings: Sequence[str],
        padding_side: str = "left",
        left_truncate_len: int | None = None,
        truncation: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = [self.tok_encode(string, left_truncate_len=left_truncate_len) for string in strings]
        return pad(tokens, self.tokenizer.pad_token_id, "left")

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._silent)
        return found

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        found: list[str] = super().generate_until(requests, disable_tqdm=disable_tqdm or self._silent)
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        with tqdm(unit="window", desc="rolling log-likelihoods") as self._windows:
            found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm=True)
        self._windows = None
        return found

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        rolling = self._windows is not None  # then the harness would show one bar per batch
        found: list[tuple[float, bool]] = super()._loglikelihood_tokens(
            requests, disable_tqdm=disable_tqdm or rolling, override_bs=override_bs
        )
        if self._windows is not None:
            self._windows.update(len(found))
        values = torch.tensor([value for value, _ in found])
        check_finite(values, "the log-likelihoods of a task", self._loaded.runs_on.dtype)
        return found
