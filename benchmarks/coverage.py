"""Simulate how often intervals contain the true value, and how often tests find a difference where there is none.

python -m benchmarks.coverage [--samples N]

The samples are skewed, as real ones are, and their true figure is known. Prints the tables of docs/protocol.md.
"""

import argparse
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages.lib.figures.statistics import paired_p, ratio_intervals

ITEMS = (3, 5, 10, 30, 100)
RESAMPLES = 1000
LEVEL_OF_SIGNIFICANCE = 0.05

Values: TypeAlias = npt.NDArray[np.float64]
Draw: TypeAlias = Callable[[np.random.Generator, int], tuple[Values, Values]]
"""From a generator and a number of items to each item's value and weight."""


def perplexity(generator: np.random.Generator, items: int) -> tuple[Values, Values]:
    """Documents of log-normal length; their nats per token are 2.9 and a gamma variable of mean 0.9."""
    tokens = 10 + generator.lognormal(5.3, 0.6, items).round()
    return tokens * (2.9 + generator.gamma(2, 0.45, items)), tokens


def very_unequal(generator: np.random.Generator, items: int) -> tuple[Values, Values]:
    """The same changes on documents of which some are 20 times as long as the median."""
    tokens = 10 + generator.lognormal(5.3, 1.5, items).round()
    return tokens * generator.exponential(0.3, items), tokens


def change(generator: np.random.Generator, items: int) -> tuple[Values, Values]:
    """The nats that a pruned model adds on such documents: an exponential variable of mean 0.3 per token."""
    tokens = 10 + generator.lognormal(5.3, 0.6, items).round()
    return tokens * generator.exponential(0.3, items), tokens


def rouge(generator: np.random.Generator, items: int, zeros: float = 0.45) -> tuple[Values, Values]:
    """Scores of summaries: a share of zeros, and beta variables of mean 1/6."""
    return np.where(generator.random(items) < zeros, 0, generator.beta(1.2, 6, items)), np.ones(items)


def rare_rouge(generator: np.random.Generator, items: int) -> tuple[Values, Values]:
    return rouge(generator, items, zeros=0.85)


def rouge_change(generator: np.random.Generator, items: int) -> tuple[Values, Values]:
    """Changes of such scores without a difference in truth: 70 % zeros, and differences of beta variables."""
    zeros = generator.random(items) < 0.7
    return np.where(zeros, 0, generator.beta(1.2, 6, items) - generator.beta(1.2, 6, items)), np.ones(items)


def log_normal(generator: np.random.Generator, items: int) -> tuple[Values, Values]:
    return generator.lognormal(0, 1, items), np.ones(items)


KINDS: Mapping[str, tuple[Draw, float]] = {
    "perplexity, documents of unequal length": (perplexity, 2.9 + 0.9),
    "change of perplexity, exponential": (change, 0.3),
    "the same, lengths very unequal": (very_unequal, 0.3),
    "ROUGE, 45 % of the scores zero": (rouge, 0.55 * 1.2 / 7.2),
    "ROUGE, 85 % of the scores zero": (rare_rouge, 0.15 * 1.2 / 7.2),
    "change of ROUGE, 70 % of the items equal": (rouge_change, 0.0),
    "log-normal": (log_normal, float(np.exp(0.5))),
}
"""By name, how a sample is drawn, and its true ratio."""


def coverage(draw: Draw, truth: float, items: int, samples: int) -> str:
    """The share of intervals that contain the true value and, in brackets, of samples that have an interval."""
    generator = np.random.default_rng(items)
    found = [
        ratio_intervals(values[None], weights, RESAMPLES, seed)[0]
        for seed, (values, weights) in enumerate(draw(generator, items) for _ in range(samples))
    ]
    intervals = [interval for interval in found if interval]
    if len(intervals) < samples / 100:
        return "none"
    containing = sum(interval.low <= truth <= interval.high for interval in intervals)
    return f"{containing / len(intervals):.1%} ({len(intervals) / samples:.0%})"


def false_positives(draw: Draw, items: int, samples: int) -> str:
    """The share of p-values below 5 % for two models whose scores are drawn alike."""
    generator = np.random.default_rng(items)
    found = 0
    for seed in range(samples):
        (first, _), (second, _) = draw(generator, items), draw(generator, items)
        found += paired_p(second - first, RESAMPLES, seed).value < LEVEL_OF_SIGNIFICANCE
    return f"{found / samples:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=1000, help="samples per cell (default: 1000)")
    samples = parser.parse_args().samples
    head = "".join(f" | {items} items" for items in ITEMS) + " |\n|---|" + "---:|" * len(ITEMS)
    print(f"| 95 % intervals, coverage{head}")
    for name, (draw, truth) in tqdm(KINDS.items(), unit="kind"):
        print(f"| {name} | {' | '.join(coverage(draw, truth, items, samples) for items in ITEMS)} |")
    print(f"\n| p < 0.05 without a difference{head}")
    for name, (draw, _) in tqdm(KINDS.items(), unit="kind"):
        print(f"| {name} | {' | '.join(false_positives(draw, items, samples) for items in ITEMS)} |")


if __name__ == "__main__":
    main()
