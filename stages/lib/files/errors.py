"""Errors that the user can fix: printed as one line, without a traceback."""

import re


class UserError(Exception):
    """The input or the machine is at fault; the message says what is wrong and what to do about it."""

    exit_status = 1


class ParamsError(UserError):
    """`params.yaml` or the command line asks for something that does not exist."""

    exit_status = 2


def out_of_memory(error: Exception) -> bool:
    """Whether memory ran out: Python's, torch's on any device, or what a library quotes of the system's error."""
    pattern = r"out of memory|can't allocate memory|cannot allocate memory|(os error|errno) 12\b"
    return isinstance(error, MemoryError) or re.search(pattern, str(error), re.IGNORECASE) is not None


def reason_of(error: BaseException) -> str:
    """What an error says, in one line of some 300 characters at most; its class if it says nothing."""
    said = " ".join(str(error).split()).rstrip(": ") or type(error).__name__
    return said if len(said) <= 300 else f"{said[:300]}…"
