"""What the numbers of a run depend on besides its config: versions, the commit, the machine."""

import importlib.metadata
import json
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from metarl.runs.files import read_file

DISTRIBUTION = "metarl-toolkit"
NAME = "versions.json"
MOST_BYTES = 1 << 20
COMMIT = re.compile(r"[0-9a-f]{7,64}(\+changes)?")
RECORDED = ("torch", "mujoco", "gymnasium", "metaworld", "numpy")


def versions() -> dict[str, Any]:
    """As ``versions.json`` holds it; null where something is not known."""
    found: dict[str, Any] = {name: _version(name) for name in RECORDED}
    return {
        **found,
        "metarl": _version(DISTRIBUTION),
        "python": platform.python_version(),
        "git_commit": git_commit(Path(__file__).resolve()),
        "cpu_cores": os.cpu_count(),
    }


def recorded_commit(run: Path) -> str | None:
    """The commit that began a run, where its ``versions.json`` says one."""
    try:
        commit = json.loads(read_file(run / NAME, MOST_BYTES))["git_commit"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return commit if isinstance(commit, str) and COMMIT.fullmatch(commit) else None


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:  # a copy of the folder on the path
        return None


def git_commit(source: Path) -> str | None:
    """The commit that a source file is of, with ``+changes`` where tracked files were edited since.

    None outside a git checkout, without git, and where the file only lies inside somebody else's: in a ``.venv``, or
    copied and not tracked.
    """

    def git(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", source.name)
        git("cat-file", "-e", f"HEAD:./{source.name}")  # added but not committed is of no commit
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
