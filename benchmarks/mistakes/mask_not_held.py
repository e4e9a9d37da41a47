"""Fine-tuning of a pruned model without holding its mask: pruned weights come back.

All weights are tuned on the training reviews with the settings of mode `all`, once with the pruned
weights set to zero after every step, once without.
"""

from dataclasses import replace
from pathlib import Path

from benchmarks.mistakes.setting import parse
from stages.lib.evaluation.classification import tokenize
from stages.lib.evaluation.finetuning import fine_tune
from stages.lib.files.rows import read_rows
from stages.lib.files.sampling import draw


def main() -> None:
    setting = parse("mask_not_held", __doc__, model="pruned")
    settings, seed = setting.params.classify, setting.params.seed
    train = draw(read_rows(Path("data/reviews"), "train"), settings.train_examples, seed, "classify.train_examples")
    test = draw(read_rows(Path("data/reviews"), "test"), settings.test_examples, seed, "classify.test_examples")
    labels = train["label"].to_numpy()
    for mistaken in setting.each_way():
        loaded = setting.load(for_training=True)
        before = sum(int(weight.count_nonzero()) for weight in loaded.model.parameters())
        tuned = replace(loaded, masks={}) if mistaken else loaded
        train_tokens, test_tokens = (tokenize(loaded, [*rows["text"]], settings.max_tokens) for rows in (train, test))
        probabilities = fine_tune(tuned, train_tokens, labels, test_tokens, settings, len(set(labels)), seed)
        after = sum(int(weight.count_nonzero()) for weight in loaded.model.parameters())
        right = int((probabilities.argmax(axis=1) == test["label"].to_numpy()).sum())
        counts = f"effective parameters {before:,} before, {after:,} after"
        setting.show(mistaken, f"{counts}; accuracy {right / len(test):.4f}")


if __name__ == "__main__":
    main()
