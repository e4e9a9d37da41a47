"""Perplexity with the pads of short lines counted as labels.

Every document is cut into lines of 128 tokens, and the last is padded to 128 with the end-of-text
token, as a tokenizer with `padding="max_length"` does it. Where `labels` is a copy of `input_ids`,
the pads are predicted too. Both ways score the same lines; only what counts differs.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.mistakes.setting import parse
from stages.lib.files.rows import read_rows
from stages.lib.inference.batches import pad
from stages.lib.inference.loading import Loaded

LINE = 128
BATCH = 8


@torch.inference_mode()
def line_losses(loaded: Loaded, lines: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Each label's loss, and whether it is a real token. Both of shape (lines, LINE - 1)."""
    losses, real = [], []
    for start in range(0, len(lines), BATCH):
        batch = [list(line) + [0] * (LINE - len(line)) for line in lines[start : start + BATCH]]
        _, mask = pad(lines[start : start + BATCH], 0, "right")
        mask = functional.pad(mask, (0, LINE - mask.shape[1]))
        ids = torch.tensor(batch).masked_fill(mask == 0, loaded.tokenizer.eos_token_id).to(loaded.device)
        logits = loaded.model(input_ids=ids, attention_mask=mask.to(ids.device), use_cache=False).logits[:, :-1]
        losses.append(functional.cross_entropy(logits.transpose(1, 2).float(), ids[:, 1:], reduction="none").cpu())
        real.append(mask[:, 1:] == 1)
    return torch.cat(losses).numpy(), torch.cat(real).numpy()


def main() -> None:
    setting = parse("pads_as_labels", __doc__)
    loaded = setting.load()
    documents = read_rows(Path("data/text"), "test")["text"].tolist()
    tokens = loaded.tokenizer(documents, verbose=False)["input_ids"]
    lines = [ids[start : start + LINE] for ids in tokens for start in range(0, len(ids), LINE)]
    losses, real = line_losses(loaded, lines)
    for mistaken in setting.each_way():
        counted = np.ones_like(real) if mistaken else real
        share = 1 - real.sum() / counted.sum()
        setting.show(
            mistaken,
            f"perplexity {np.exp(losses[counted].mean()):.2f}, {counted.sum():,} labels, {share:.0%} of them pads",
        )


if __name__ == "__main__":
    main()
