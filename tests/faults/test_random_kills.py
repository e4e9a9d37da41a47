"""`kill -9` at random moments: in the end there is what an undisturbed run leaves, to the byte."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from repository import Repository

KILLS = 50
LONGEST = 11.0
"""Seconds between two kills are drawn from 0.5 up to this: a stage of the tiny model takes about six."""
UNDISTURBED = 600.0


@pytest.mark.faults
def test_fifty_kills_at_random_moments(
    finished_repository: Repository, tiny_folders: dict[str, Path], tmp_path: Path
) -> None:
    undisturbed = finished_repository.results()
    moments = random.Random(0)
    kills = runs = 0
    while kills < KILLS:
        repository = Repository.create(tmp_path / f"run-{runs}", tiny_folders["llama"])
        runs += 1
        finished = False
        while not finished and kills < KILLS:
            finished = run_for(repository, moments.uniform(0.5, LONGEST))
            kills += not finished
        assert run_for(repository, UNDISTURBED)
        assert repository.results() == undisturbed
        assert repository.run(sys.executable, "-m", "stages.verify").status == 0


def run_for(repository: Repository, seconds: float) -> bool:
    """Run `dvc repro`, and kill it and its stage after that time; whether it had finished before."""
    process = repository.repro()
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode != 0:
        repository.mend_lock_file(output)
        return run_for(repository, seconds)
    return True
