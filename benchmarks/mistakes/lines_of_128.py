"""Perplexity in lines of 128 tokens instead of windows of the whole context.

Each line starts without anything before it, and its first tokens are hard to guess.
"""

from pathlib import Path

from benchmarks.mistakes.setting import parse
from stages.lib.evaluation.perplexity import score
from stages.lib.figures.definitions import figures_of
from stages.lib.files.rows import read_rows

LINE = 128


def main() -> None:
    setting = parse("lines_of_128", __doc__)
    params, loaded = setting.params, setting.load()
    documents = read_rows(Path("data/text"), "test")["text"].tolist()
    for mistaken in setting.each_way():
        lines = {"context": LINE, "stride": LINE, "batch_size": 8}
        settings = params.perplexity.model_copy(update=lines) if mistaken else params.perplexity
        found = figures_of("perplexity", score(loaded, documents, settings), params.statistics.resamples, params.seed)
        where = f"windows of {settings.context}, {found['tokens']:,} tokens"
        setting.show(mistaken, f"perplexity {found['perplexity']:.2f}, {where}")


if __name__ == "__main__":
    main()
