"""Shows progress on a terminal, unless the user asks for silence."""

import os
import sys

SWITCH = "TQDM_DISABLE"
"""tqdm's own variable, read where tqdm is imported, so that libraries' bars obey it as well."""


def decide(quiet: bool) -> None:
    """Hide progress if asked to, or if stderr is not a terminal; a user's own TQDM_DISABLE takes precedence."""
    if quiet:
        os.environ[SWITCH] = "1"
    elif not sys.stderr.isatty():
        os.environ.setdefault(SWITCH, "1")
    if os.environ.get(SWITCH, "0").lower() not in ("", "0", "false"):
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PIP_QUIET": "1", "PIP_PROGRESS_BAR": "off"}
