"""Run commands as forks of one process that has already imported the libraries.

Starting Python with torch, transformers and DVC takes seconds; a stage of a tiny model takes a tenth of one.
The commands that the tests run most are therefore sent to a server. It forks, and the child takes over the
caller's working directory, environment and standard streams. It imports the project's own modules afterwards,
from that working directory.

    python warm_python.py serve SOCKET                 the server, which ends when its standard input does
    python warm_python.py ask SOCKET MODULE ARGUMENT…  like `python -m MODULE ARGUMENT…`, by that server

Killing a caller kills its command: the kernel sends SIGKILL when the connection breaks. Variables that
libraries read on import, such as `OMP_NUM_THREADS`, `TQDM_DISABLE` and `HF_HOME`, keep the values that they had
when the server started. Resource limits, the umask, the process group (and so Ctrl-C) and variables of the
interpreter such as `PYTHONPATH` are not passed on. Linux only.
"""

import json
import os
import signal
import socket
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LIBRARIES = (
    *("torch", "transformers", "safetensors.torch", "gguf"),
    *("pandas", "pyarrow.parquet", "scipy.stats", "scipy.optimize", "sklearn.linear_model", "sklearn.pipeline"),
    *("datasets", "evaluate", "rouge_score.rouge_scorer", "pydantic", "ruamel.yaml", "jinja2", "matplotlib.pyplot"),
    *("lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks"),
    *("dvc.repo", "dvc.cli.parser"),
)
LARGEST_REQUEST = 200_000
"""Bytes. An environment and a command line take a few thousand."""


@contextmanager
def started(folder: Path, environment: "Mapping[str, str]") -> "Iterator[None]":
    """Start a server with this environment, and write the commands that ask it into the folder; only on Linux."""
    import subprocess  # here and below: `ask` starts fast because it imports little

    if sys.platform != "linux":
        yield
        return
    write_commands(folder)
    server = subprocess.Popen(
        [sys.executable, __file__, "serve", str(folder / "socket")],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        yield
    finally:
        server.kill()
        server.wait()


def write_commands(folder: Path) -> None:
    """Write `dvc`, and a `python` that sends stages to the server and runs everything else itself."""
    import shlex

    ask = shlex.join([sys.executable, "-IS", __file__, "ask", str(folder / "socket")])
    python = f'case "$1 $2" in "-m stages."*) shift; exec {ask} "$@";; esac; exec {shlex.quote(sys.executable)} "$@"'
    for name, script in {"python": python, "dvc": f'exec {ask} dvc "$@"'}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)


def ask(path: str, *arguments: str) -> int:
    """Run a module on the server, wait for its process to end, and return its exit status."""
    request = {"arguments": arguments, "folder": str(Path.cwd()), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connect(connection, path)
        socket.send_fds(connection, [json.dumps(request).encode()], [0, 1, 2])
        status = connection.recv(16)
        connection.recv(1)  # nothing, once the process is gone
    return int(status or 1)


def connect(connection: socket.socket, path: str) -> None:
    """Connect to the server, which may still be starting."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return connection.connect(path)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def serve(path: str) -> None:
    """Fork for each request, until standard input ends."""
    import gc
    import select

    os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.bind(f"{path}.new")
    door.listen(64)  # callers wait here while the libraries are imported
    Path(f"{path}.new").rename(path)
    import_libraries()
    gc.collect()
    gc.freeze()  # otherwise the first collection in a child copies every page
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no one waits for the children
    while sys.stdin not in select.select([door, sys.stdin], [], [])[0]:
        connection, _ = door.accept()
        if os.fork() == 0:
            door.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            message, streams, _, _ = socket.recv_fds(connection, LARGEST_REQUEST, 3)
            if not message:  # the caller was killed before it could ask
                os._exit(1)
            run(connection, json.loads(message), streams)
        connection.close()


def import_libraries() -> None:
    import importlib

    for name in LIBRARIES:
        importlib.import_module(name)
    # transformers imports these only when they are asked for, DVC its commands.
    for name in ("AutoModelForCausalLM", "AutoTokenizer", "GPT2LMHeadModel", "LlamaForCausalLM", "Trainer"):
        getattr(sys.modules["transformers"], name)
    sys.modules["dvc.cli.parser"].get_main_parser()


def run(connection: socket.socket, request: dict[str, Any], streams: list[int]) -> None:
    """In the child: run the requested command, report its exit status, and exit."""
    import atexit
    import fcntl
    import runpy
    import select
    import traceback

    os.setsid()
    fcntl.fcntl(connection, fcntl.F_SETOWN, -os.getpid())  # the process group
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(connection, fcntl.F_SETFL, fcntl.fcntl(connection, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([connection], [], [], 0)[0]:  # the caller sends nothing more, so it is gone already
        os._exit(1)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in os.environ
    module, *arguments = request["arguments"]
    sys.argv, sys.path[0] = [module, *arguments], request["folder"]
    status: object = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as left:
        status = left.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        connection.send(str(status if isinstance(status, int) else 1).encode())
    finally:
        os._exit(1)  # tearing down the libraries takes longer than most commands


if __name__ == "__main__":
    sys.exit({"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:]))
