"""Compare the metrics of a run with those that are committed, within the noise that machines differ by.

Counts are exact: masks follow from bit patterns. Sums of float32 products are not the same on every
processor, so log-likelihoods differ in their last digits: perplexity and bits per byte may differ by
1e-4 of their value. A figure that hangs on such a digit may flip: at most 6 of 1,200 reviews, and of
the 64 summaries, each read greedily, as many as move the mean ROUGE by 0.015.
"""

import json
import subprocess
import sys
from pathlib import Path

RELATIVE = {"perplexity": 1e-4, "bits_per_byte": 1e-4}
ABSOLUTE = {"accuracy": 0.005, "rouge1": 0.015, "rouge2": 0.015, "rougeL": 0.015}


def committed(path: str) -> dict[str, float]:
    shown = subprocess.run(["git", "show", f"HEAD:{path}"], capture_output=True, text=True, check=True)
    content: dict[str, float] = json.loads(shown.stdout)
    return content


def main() -> None:
    listed = subprocess.run(["git", "ls-files", "metrics"], capture_output=True, text=True, check=True)
    failed = not listed.stdout
    for path in listed.stdout.split():
        expected, found = committed(path), json.loads(Path(path).read_text(encoding="utf-8"))
        if set(expected) != set(found):
            print(f"{path}: has the keys {sorted(found)}, committed are {sorted(expected)}")
            failed = True
            continue
        for key, value in expected.items():
            noise = RELATIVE.get(key, 0.0) * value + ABSOLUTE.get(key, 0.0)
            right = abs(found[key] - value) <= noise
            failed |= not right
            verdict = "as committed" if found[key] == value else "within noise" if right else "WRONG"
            print(f"{path} {key}: {found[key]}, committed {value}, noise {noise:.3g}: {verdict}")
    if failed:
        sys.exit("metrics differ from the committed ones by more than the noise between machines")


if __name__ == "__main__":
    main()
