"""The lock that a process holds on the run it writes to; the system drops it when the process dies."""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import lock_descriptor, unlock_descriptor

from metarl.runs.files import open_regular


class InUse(ValueError):
    """Another process writes to the run."""


@contextmanager
def run_lock(run: Path, warn: Callable[[str], None] = warnings.warn) -> Iterator[None]:
    """Held while a process writes to a run. Where the file system has no locks, ``warn`` is told and nothing is held.

    Raises:
        ValueError: another process holds it, or the run cannot be written.
    """
    try:
        descriptor = open_regular(run / "run.lock", os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise ValueError(f"cannot write to {run / 'run.lock'} ({error.strerror}): nothing can be recorded") from error
    try:
        held = _lock(descriptor, run, warn)
        try:
            yield
        finally:
            if held:
                with contextlib.suppress(OSError):  # the folder may be gone
                    unlock_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run: Path, warn: Callable[[str], None]) -> bool:
    """Whether the lock is held.

    Raises:
        ValueError: another process holds it.
    """
    try:
        if lock_descriptor(descriptor, blocking=False):
            return True
    except (OSError, NotImplementedError) as error:
        warn(f"{run} cannot be locked ({error}): see to it that no other process writes to it")
        return False
    raise InUse(f"{run} is in use by another process: wait for it, or stop it")
