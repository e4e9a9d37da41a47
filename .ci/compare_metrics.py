"""Compare the metrics of a run with the committed ones, within the noise between machines.

Counts are exact: masks follow from bit patterns, and so do averages and kept blocks. Sums of float32 products
differ between processors, so log-likelihoods differ in their last digits: perplexity, bits per byte and KL divergence
may differ by 1e-4 of their value (other kernels on one machine moved them by 5e-6). A prediction that depends on such a
digit may flip: at most 6 of 12,045 most likely tokens, 2 of 500 reviews by each of two models, and as many of the 32
greedy summaries as move the mean ROUGE by 0.015, of which one may begin or cease to repeat itself.

The ends of an interval move with the figure, and over few items by more: one flipped summary moves an end of ROUGE by
up to 0.044, and 5e-6 of the log-likelihoods of sensitivity's five documents an end by up to 0.8 %. An interval of
ROUGE may also come or go with a flip. p-values depend on single flips, so neither they nor the changes between figures
are compared.
"""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

RELATIVE = dict.fromkeys(("perplexity", "bits_per_byte", "kl_divergence", "ratio"), 1e-4)
ABSOLUTE = {
    **{"same_top": 5e-4, "accuracy": 0.005, "nats_per_million": 1.1e-4},
    **dict.fromkeys(("flips", "lost", "gained"), 0.009),
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), 0.015),
    **dict.fromkeys(("degenerate", "empty", "repeating"), 0.032),
}
"""The smallest kind of matrix has 0.94 million weights pruned, so 1e-4 nats are 1.1e-4 nats per million."""
ENDS_OF_ROUGE = 0.05
ENDS_OVER_FEW = 0.03
"""Of the ends of the intervals under metrics/sensitivity."""
ENDS = ("_low", "_high")
DERIVED = "metrics/changes.csv"


def figures(path: str, content: str) -> Iterator[tuple[str, float | str]]:
    """Each figure in a file, by key, or by row and column."""
    if path.endswith(".json"):
        yield from json.loads(content).items()
        return
    table = pd.read_csv(io.StringIO(content))
    if path == DERIVED:
        table = table[["model", "reference", "measure", "n"]]
    for column in table:
        if "_p_holm_vs_" not in column:
            yield from ((f"{row} {column}", value) for row, value in enumerate(table[column]) if not pd.isna(value))


def noise(path: str, key: str, value: float | str) -> float:
    """How far a figure may be from the committed one."""
    if not isinstance(value, float):
        return 0.0
    name = key.rsplit(" ", maxsplit=1)[-1]
    if name.endswith(ENDS):
        name = name.removesuffix("_low").removesuffix("_high")
        if name.startswith("rouge"):
            return ENDS_OF_ROUGE
        if path.startswith("metrics/sensitivity/"):
            return ENDS_OVER_FEW * abs(value)
        if name == "degenerate":
            return ENDS_OF_ROUGE
    return RELATIVE.get(name, 0.0) * abs(value) + ABSOLUTE.get(name, 0.0)


def may_be_absent(key: str) -> bool:
    return "rouge" in key and key.endswith(ENDS)


def main() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "metrics/*.json", "metrics/*.csv"], capture_output=True, text=True, check=True
    )
    failed, compared, same = not listed.stdout, 0, 0
    for path in listed.stdout.split():
        shown = subprocess.run(["git", "show", f"HEAD:{path}"], capture_output=True, text=True, check=True)
        expected = dict(figures(path, shown.stdout))
        found = dict(figures(path, Path(path).read_text(encoding="utf-8")))
        if {key for key in set(expected) ^ set(found) if not may_be_absent(key)}:
            print(f"{path}: has the keys {sorted(found)}, committed are {sorted(expected)}")
            failed = True
            continue
        for key, value in ((key, value) for key, value in expected.items() if key in found):
            compared += 1
            same += found[key] == value
            if found[key] == value:
                continue
            right = isinstance(value, float | int) and abs(found[key] - value) <= noise(path, key, float(value))
            failed |= not right
            print(f"{path} {key}: {found[key]}, committed {value}: {'within noise' if right else 'WRONG'}")
    print(f"{compared} figures: {same} as committed to the last digit, the others as listed above")
    if failed:
        sys.exit("metrics differ from the committed ones by more than the noise between machines")


if __name__ == "__main__":
    main()
