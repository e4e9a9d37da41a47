"""Commands run through tests/warm_python.py behave like ordinary processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from repository import COLD, ENVIRONMENT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the commands are warm on Linux only")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with two stages: one prints what it receives, the other starts a child and waits."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "show.py").write_text(
        "import os, sys\n"
        "print(sys.argv[1:], os.getcwd(), os.environ['SHOWN'], sys.stdin.read(), 'torch' in sys.modules)\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    (tmp_path / "stages" / "wait.py").write_text(
        "import os, subprocess\n"
        "print(os.getpid(), subprocess.Popen(['sleep', '60']).pid, flush=True)\n"
        "while True: sum(range(1000))\n"
    )
    return tmp_path


@pytest.mark.parametrize("environment", [ENVIRONMENT, COLD], ids=["warm", "cold"])
def test_arguments_folder_environment_and_streams_are_passed_on(stage: Path, environment: dict[str, str]) -> None:
    done = subprocess.run(
        ["python", "-m", "stages.show", "a b", "'"],
        cwd=stage,
        env={**environment, "SHOWN": "value"},
        input="typed",
        capture_output=True,
        text=True,
        check=False,
    )
    imported = environment is ENVIRONMENT
    assert done.stdout == f"""['a b', "'"] {stage} value typed {imported}\n"""
    assert (done.stderr, done.returncode) == ("to stderr\n", 7)


def test_killing_the_caller_kills_the_command_and_its_children(stage: Path) -> None:
    caller = subprocess.Popen(["python", "-m", "stages.wait"], cwd=stage, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    command, child = processes = [int(number) for number in caller.stdout.readline().split()]
    assert caller.pid not in (command, child)
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(number) for number in processes):
        assert time.monotonic() < deadline, "the command outlived its caller"
        time.sleep(0.01)


def test_a_killed_command_is_a_failure(stage: Path) -> None:
    caller = subprocess.Popen(["python", "-m", "stages.wait"], cwd=stage, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    command, child = (int(number) for number in caller.stdout.readline().split())
    os.kill(command, signal.SIGKILL)
    assert caller.wait(timeout=10) == 1
    os.kill(child, signal.SIGKILL)
