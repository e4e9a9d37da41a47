"""Whether progress is shown: where someone is looking, and has not asked for silence."""

import os
import sys

_SWITCH = "TQDM_DISABLE"
"""tqdm's own, so that libraries' bars keep to it as well; read where tqdm is imported."""


def decide(quiet: bool) -> None:
    """Hide progress if asked to, or where stderr is no terminal; a user's TQDM_DISABLE counts as asking."""
    if quiet:
        os.environ[_SWITCH] = "1"
    elif not sys.stderr.isatty():
        os.environ.setdefault(_SWITCH, "1")


def hidden() -> bool:
    return os.environ.get(_SWITCH, "0").lower() not in ("", "0", "false")
