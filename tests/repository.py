"""A Git repository with the tiny project in it, and the real commands run there."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from conftest import Finished, make_project

PRUNED_ONLY = {"prune", "recover", "post-ppl", "classify@pruned", "summarize@pruned", "measure@pruned", "report"}
ALL = PRUNED_ONLY | {
    *(f"download@{item}" for item in ("model", "distilled", "text", "reviews", "documents")),
    "baseline-ppl",
    "classify@original",
    "summarize@original",
    "measure@original",
    "shrink",
    "recover-others@merged_2",
    "recover-others@compressed_2",
    "compare@merged_2",
    "compare@compressed_2",
    "measure-others@merged_2",
    "measure-others@compressed_2",
    "sensitivity",
}
LIGHT = {stage for stage in ALL if stage.startswith(("measure", "report"))}
"""The stages that run no model; their results are in Git, and so not in a run cache."""

COLD = {
    **os.environ,
    "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    **{f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
"""An environment in which `python` and `dvc` start ordinary processes, as for a user."""
ENVIRONMENT = {**COLD, "PATH": os.pathsep.join([os.environ["SHARED_BY_TESTS"], COLD["PATH"]])}
"""An environment in which `dvc` and the stages are forks of a process with the imports done: tests/warm_python.py."""


class Repository:
    """A Git repository with the tiny project in it."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        self.folder = folder
        self.environment = environment

    @classmethod
    def create(cls, folder: Path, model: Path) -> "Repository":
        repository = cls(folder)
        make_project(folder, model)
        repository.git("init", "-q")
        repository.commit("The tiny project")
        return repository

    def cold(self) -> "Repository":
        """The same repository, with commands run as ordinary processes."""
        return Repository(self.folder, COLD)

    def copy(self, folder: Path) -> "Repository":
        """A full copy, cache included, that keeps the hard links between cache and workspace."""
        copies: dict[int, str] = {}

        def copy_or_link(source: str, target: str) -> None:
            known = copies.setdefault(Path(source).stat().st_ino, target)
            if known == target:
                shutil.copy2(source, target)
            else:
                os.link(known, target)

        shutil.copytree(self.folder, folder, symlinks=True, copy_function=copy_or_link)
        return Repository(folder, self.environment)

    def run(self, *command: str, limit: Callable[[], None] | None = None) -> Finished:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            preexec_fn=limit,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def git(self, *arguments: str) -> str:
        finished = self.run("git", *arguments)
        assert finished.status == 0, finished.err
        return finished.out

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)

    def dvc(self, *arguments: str) -> str:
        finished = self.run("dvc", *arguments)
        assert finished.status == 0, finished.out + finished.err
        return finished.out

    def repro(self, *arguments: str) -> subprocess.Popen[str]:
        """A `dvc repro` that has just begun, in a process group of its own; DVC itself starts cold."""
        return subprocess.Popen(
            [sys.executable, "-m", "dvc", "repro", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_as_in_a_terminal,  # noqa: PLW1509 - the tests start no threads
        )

    def start(self, stage: str) -> tuple[subprocess.Popen[str], str]:
        """A forced `dvc repro` of one stage, in a process group of its own, and its output so far.

        It is given back when DVC has removed the stage's outputs and started its command.
        """
        process = self.repro("--force", "--single-item", stage)
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while not lines[-1].startswith("> python"):
            assert lines[-1], "".join(lines)
            lines.append(process.stdout.readline())
        return process, "".join(lines)

    def fix_lock_file(self, output: str) -> None:
        """Apply the fix that `stages.verify` prints after a run that stopped at a lock file with this output.

        A kill while DVC writes `dvc.lock` or its list of locks truncates that file.
        """
        assert "Traceback" not in output, output
        found = self.run("python", "-m", "stages.verify")
        remedy = re.search("fix it with: (rm .*) && dvc repro\n$", found.out + found.err)
        assert remedy, (output, found)
        assert self.run("bash", "-ec", remedy[1]).status == 0

    def results(self) -> dict[str, str]:
        """The SHA-256 of everything that the pipeline leaves, but for times and a killed run's temporaries.

        The page has times, too. Those temporaries end in .part, and Git and DVC ignore them.
        """
        files = [path for folder in ("metrics", "report", "data") for path in (self.folder / folder).rglob("*")]
        found = {path.relative_to(self.folder): path for path in files if path.is_file()}
        return {
            str(name): hashlib.sha256(path.read_bytes()).hexdigest()
            for name, path in found.items()
            if not any(part in ("times", "index.html") or part.endswith(".part") for part in name.parts)
        }


def _as_in_a_terminal() -> None:
    """Heed Ctrl-C, although tests that run in a shell's background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def ran(output: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+)':$", output, re.MULTILINE))
