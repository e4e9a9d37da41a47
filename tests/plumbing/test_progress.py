"""Progress is shown where someone is looking, and results go where they can be read on."""

import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Finished

RunStage = Callable[..., Finished]
UNDECIDED = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}
STAGES = sorted(path.stem for path in (Path(__file__).parents[2] / "stages").glob("*.py") if path.stem != "__init__")


def run_looked_at(*arguments: str) -> str:
    """What a stage writes to stderr where that is a terminal."""
    ours, its = pty.openpty()
    termios.tcsetwinsize(its, (24, 80))
    command = [sys.executable, "-m", *arguments]
    with subprocess.Popen(command, env=UNDECIDED, stdout=subprocess.DEVNULL, stderr=its) as process:
        os.close(its)
        written = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not piece:
                break
            written += piece
    os.close(ours)
    assert process.returncode == 0, written.decode()
    return written.decode()


def test_on_a_terminal_there_is_progress_and_none_if_asked_to_be_quiet(project: Path, run_stage: RunStage) -> None:
    for item in ("model", "text"):
        assert run_stage("download", item).status == 0
    shown = run_looked_at("stages.baseline_ppl")
    assert "perplexity" in shown
    assert "tok/s" in shown
    assert run_looked_at("stages.baseline_ppl", "--quiet") == ""


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_elsewhere_there_is_none(project: Path, run_stage: RunStage, quiet: list[str]) -> None:
    for item in ("model", "text"):
        assert run_stage("download", item).status == 0
    command = [sys.executable, "-m", "stages.baseline_ppl", *quiet]
    finished = subprocess.run(command, env=UNDECIDED, capture_output=True, text=True, check=True)
    assert (finished.stdout, finished.stderr) == ("", "")


def test_no_stage_reads_the_switch_before_it_is_set() -> None:
    code = f"import importlib, sys\nfor stage in {STAGES}: importlib.import_module(f'stages.{{stage}}')\n"
    code += "print('tqdm' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout == "False\n"
