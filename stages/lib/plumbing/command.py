"""Runs a stage as a command: error lines, exit status, and the time it took."""

import argparse
import atexit
import errno
import gc
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from stages.lib.files.errors import ParamsError, UserError, out_of_memory
from stages.lib.files.writing import write_json

if TYPE_CHECKING:
    from stages.lib.plumbing.params import Params

TIMES = Path("data/times")
INTERRUPTED = "interrupted; `dvc repro` resumes from here, `dvc checkout` restores the earlier results"


def run(stage: str, main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the command line, call `main`, and leave the process with its exit status.

    A stage that exists once per model or data set has an argument `item` that names it; one that exists once per
    point of the frontier has `method` and `sparsity`, one that exists once per task and model `task` and `item`.
    Statuses: 0 success, 1 the input or the machine is at fault, 2 the params or the command line are, 130 interrupted.
    Any other exception is a bug of ours and keeps its traceback.
    """
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress; for all stages, TQDM_DISABLE=1")
    arguments = parser.parse_args()
    items = [vars(arguments)[name] for name in ("task", "item", "method", "sparsity") if name in arguments]
    stage = "@".join([stage, "-".join(items)]) if items else stage
    started = time.monotonic()
    gc.set_threshold(100_000)  # the libraries' million objects live to the end: neither imports
    atexit.register(gc.freeze)  # nor the exit need to look through them again and again
    _decide_progress(arguments.quiet)
    interrupts: list[int] = []

    def interrupt(number: int, _frame: Any) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    try:
        main(arguments)
        if interrupts:  # Python drops an exception raised in a weakref's callback
            raise KeyboardInterrupt
        _record(stage, time.monotonic() - started)
    except KeyboardInterrupt:
        _fail(stage, INTERRUPTED, 130)
    except Exception as error:
        if interrupts:  # libraries turn it into errors of their own, and we turn those into UserErrors
            _fail(stage, INTERRUPTED, 130)
        if isinstance(error, UserError):
            _fail(stage, str(error), error.exit_status)
        line = _machine_fault(error)
        if line is None:
            raise
        _fail(stage, line, 1)


def _decide_progress(quiet: bool) -> None:
    """Hide progress if asked to, or if stderr is not a terminal; a user's own TQDM_DISABLE takes precedence.

    tqdm reads this variable when it is imported, so the libraries' bars obey it as well.
    """
    switch = "TQDM_DISABLE"
    if quiet:
        os.environ[switch] = "1"
    elif not sys.stderr.isatty():
        os.environ.setdefault(switch, "1")
    if os.environ.get(switch, "0").lower() not in ("", "0", "false"):
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PIP_QUIET": "1", "PIP_PROGRESS_BAR": "off"}


def load_params() -> "Params":
    """The checked content of `params.yaml`. Raises ParamsError for a mistake in it."""
    from stages.lib.plumbing.params import load_params as load  # an interrupt during this import is one line, too

    return load()


def check_model(name: str, others: Sequence[str] = ()) -> None:
    """Raise ParamsError unless a name on the command line is one of `others`, or has the form of a variant's."""
    from stages.lib.shrinking.variants import NAMES, parse_variant

    try:
        if name not in others:
            parse_variant(name)
    except ValueError:
        raise ParamsError(f"got {name!r}, takes {', '.join([*others, NAMES])}") from None


def _machine_fault(error: Exception) -> str | None:
    """One line for a full disk, or a lack of memory or permission; None for anything else."""
    text = str(error)
    # Arrow and safetensors wrap the system's error in their own, which quotes its number.
    quoted = re.search(r"(?:os error|errno) (\d+)", text, re.IGNORECASE)
    number = int(quoted[1]) if quoted else getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "the disk, or a quota on it, is full; free some space, then `dvc checkout` restores the earlier results"
    if out_of_memory(error):
        return "out of memory; lower the stage's batch_size in params.yaml and run again"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}; fix that and run again"
    return None


def _fail(stage: str, message: str, status: int) -> NoReturn:
    print(f"error: {stage}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _record(stage: str, seconds: float) -> None:
    """Record time and memory, which differ from run to run, where DVC does not compare them."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak_bytes = peak if sys.platform == "darwin" else peak * 1024
    write_json(TIMES / f"{stage}.json", {"seconds": round(seconds, 1), "peak_resident_mb": round(peak_bytes / 1e6)})
