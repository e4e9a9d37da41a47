"""The commands that tests/warm_python.py runs behave as processes of their own do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import COLD, ENVIRONMENT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the commands are warm on Linux only")


@pytest.fixture
def stage(tmp_path: Path) -> Path:
    """A folder with a stage that shows what reached it."""
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "show.py").write_text(
        "import os, sys\n"
        "print(sys.argv[1:], os.getcwd(), os.environ['SHOWN'], sys.stdin.read(), 'torch' in sys.modules)\n"
        "print('to stderr', file=sys.stderr)\n"
        "sys.exit(7)\n"
    )
    (tmp_path / "stages" / "wait.py").write_text(
        "import os\nprint(os.getpid(), flush=True)\nwhile True: sum(range(1000))\n"
    )
    return tmp_path


@pytest.mark.parametrize("environment", [ENVIRONMENT, COLD], ids=["warm", "cold"])
def test_what_is_handed_over(stage: Path, environment: dict[str, str]) -> None:
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


def test_a_killed_caller_takes_its_command_along(stage: Path) -> None:
    caller = subprocess.Popen(["python", "-m", "stages.wait"], cwd=stage, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    command = int(caller.stdout.readline())
    assert command != caller.pid
    caller.kill()
    caller.wait()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(command, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    os.kill(command, signal.SIGKILL)
    pytest.fail("the command outlived its caller")


def test_a_killed_command_is_a_failure(stage: Path) -> None:
    caller = subprocess.Popen(["python", "-m", "stages.wait"], cwd=stage, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert caller.stdout is not None
    os.kill(int(caller.stdout.readline()), signal.SIGKILL)
    assert caller.wait(timeout=10) == 1
