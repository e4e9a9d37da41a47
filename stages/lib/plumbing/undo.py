"""Restores the files that DVC removed before running a stage that then failed.

DVC deletes a stage's outputs before it runs the stage. `dvc checkout` restores those in its cache, but not the
metrics, which are in Git; DVC's cache has their content as well.
"""

import shutil
import subprocess
import sys
from pathlib import Path

from stages.lib.files.errors import UserError
from stages.lib.files.writing import new_file
from stages.lib.plumbing.lockfile import read_lock


def put_back(stage: str) -> None:
    """Restore each missing file that `dvc.lock` lists as an output of a stage, if the cache has it."""
    try:
        outputs = read_lock()[stage].outs
        missing = [output for output in outputs if not Path(output.path).exists()]
        if not missing:
            return
        cache = cache_folder()
        for output in missing:
            kept = cache / "files" / "md5" / output.md5[:2] / output.md5[2:]
            if kept.is_file() and not output.md5.endswith(".dir"):
                with new_file(Path(output.path)) as temporary:
                    shutil.copyfile(kept, temporary)
    except (OSError, KeyError, TypeError, ValueError, UserError, subprocess.SubprocessError):
        return  # a failure to undo must not hide the original one


def cache_folder() -> Path:
    """The folder of DVC's cache. Raises CalledProcessError outside of a DVC project."""
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip())
