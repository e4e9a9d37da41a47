"""Accuracy of a head that reads the last position of right-padded text, a pad.

Texts are padded to the full length with the end-of-text token, and the class is read from the
hidden state at the last position. The pads are masked, so that state still sees the text, but it
is that of a token which the text does not contain.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from benchmarks.mistakes.setting import parse
from stages.lib.evaluation.classification import Features, features, fit_head, tokenize
from stages.lib.files.rows import read_rows
from stages.lib.files.sampling import draw
from stages.lib.inference.batches import pad
from stages.lib.inference.loading import Loaded


@torch.inference_mode()
def last_position_features(loaded: Loaded, tokens: Sequence[Sequence[int]], length: int, batch_size: int) -> Features:
    """The hidden states at position `length` - 1, which is a pad wherever the text is shorter."""
    found = []
    for start in range(0, len(tokens), batch_size):
        ids, mask = pad(tokens[start : start + batch_size], loaded.tokenizer.eos_token_id, "right")
        missing = length - ids.shape[1]
        ids = functional.pad(ids, (0, missing), value=loaded.tokenizer.eos_token_id).to(loaded.device)
        mask = functional.pad(mask, (0, missing)).to(loaded.device)
        states = loaded.body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        found.append(states[:, -1].float().cpu().numpy())
    return np.concatenate(found)


def main() -> None:
    setting = parse("pad_position", __doc__)
    settings, seed, loaded = setting.params.classify, setting.params.seed, setting.load()
    train = draw(read_rows(Path("data/reviews"), "train"), settings.train_examples, seed, "classify.train_examples")
    test = draw(read_rows(Path("data/reviews"), "test"), settings.test_examples, seed, "classify.test_examples")
    tokens = tokenize(loaded, [*train["text"], *test["text"]], settings.max_tokens)
    for mistaken in setting.each_way():
        if mistaken:
            states = last_position_features(loaded, tokens, settings.max_tokens, settings.batch_size)
        else:
            states = features(loaded, tokens, settings.batch_size)
        fitted, scored = np.split(states, [len(train)])
        predicted = fit_head(fitted, train["label"].to_numpy(), scored, settings.regularization, seed).argmax(axis=1)
        right = int((predicted == test["label"].to_numpy()).sum())
        setting.show(mistaken, f"accuracy {right / len(test):.4f}, {right} of {len(test)} reviews")


if __name__ == "__main__":
    main()
