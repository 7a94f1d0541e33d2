"""What a process needs before it trains, and how it ends on bad input: one sentence and an exit code."""

import ctypes
import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import torch

from metarl.runs import checkpoint
from metarl.runs.stopping import install, reinstall

EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 130


def prepare_process(num_threads: int, *, deterministic: bool = False) -> None:
    """Threads, and a malloc that keeps its memory: fresh pages for every large tensor cost a third of an update."""
    if num_threads:
        torch.set_num_threads(num_threads)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(deterministic)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc; other C libraries do without
        if mallopt is not None:
            mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD: the largest value it takes
            mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


class Ended(BaseException):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """The first signal that asks for it raises :class:`Ended`, on the way of which half-made things are removed; later
    ones change nothing. Training has handlers of its own."""
    came: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) == 1:
            raise Ended(number)

    before = install(end)
    try:
        yield
    finally:
        reinstall(before)


@contextmanager
def errors_in_one_sentence() -> Iterator[None]:
    """Ends the program with what is wrong and what would do, without a traceback."""
    try:
        yield
    except (ValueError, FloatingPointError, checkpoint.CheckpointError) as error:
        _fail(str(error))
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _fail(f"{error}; a run that it stopped continues with --resume once that is mended" if full else str(error))
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except Ended as ended:
        _fail("interrupted", 128 + ended.number)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        wanted = str(error).partition(". GPU")[0]  # what follows is a paragraph about the allocator
        advice = "start a run with lower num_envs, num_tasks or episodes, or with MAML learner.chunk_samples"
        _fail(f"out of memory: {advice} ({wanted})")


def _fail(message: str, code: int = EXIT_BAD_INPUT) -> NoReturn:
    print(f"error: {' '.join(message.splitlines())}", file=sys.stderr)
    sys.exit(code)
