"""Time `dvc repro` with nothing to do here, and in a project of one stage, in one run.

python -m benchmarks.nothing_to_do [--pairs N]

Needs a finished run in the working tree. Both commands alternate; the figures are medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

ONE_STAGE = """stages:
  copy:
    cmd: cp a b
    deps: [a]
    outs: [b]
"""


def dvc(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def seconds(folder: Path) -> float:
    """The time of a `dvc repro` that runs nothing."""
    started = time.perf_counter()
    output = dvc(folder, "repro")
    took = time.perf_counter() - started
    if "Running stage" in output:
        sys.exit(f"{folder}: dvc repro ran stages; finish the run first")
    return took


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nothing_to_do", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5, help="how often each is timed (default: 5)")
    pairs = parser.parse_args().pairs
    with TemporaryDirectory() as name:
        small, here = Path(name), Path.cwd()
        (small / "dvc.yaml").write_text(ONE_STAGE, encoding="utf-8")
        (small / "a").write_text("a", encoding="utf-8")
        subprocess.run(["git", "init", "-q", name], check=True)
        dvc(small, "init", "-q")
        dvc(small, "repro", "-q")
        seconds(here)  # DVC hashes what it has not seen before
        turns = [(seconds(here), seconds(small)) for _ in range(pairs)]
    ours, one_stage = (statistics.median(side) for side in zip(*turns, strict=True))
    print(
        json.dumps({"seconds": round(ours, 2), "one_stage": round(one_stage, 2), "ratio": round(ours / one_stage, 2)})
    )


if __name__ == "__main__":
    main()
