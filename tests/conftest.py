"""Shape annotations of the library are checked at run time while the tests run: helpers/shape_checks.py."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run side by side, a process a core

import pytest
import shape_checks
import torch

shape_checks.install("metarl")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as where a shell began the tests in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Meta-World's starts, kept beside pytest's own cache: tests leave the user's alone
CACHE = Path(__file__).parent.parent / ".pytest_cache"
os.environ.setdefault("METARL_CACHE", str(CACHE / "metarl"))
os.environ.setdefault("WARP_CACHE_PATH", str(CACHE / "warp"))  # kernels, compiled once


def pytest_runtest_setup() -> None:
    shape_checks.begin_test()
    torch.manual_seed(0)  # of what a test draws without a generator


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """On tensors this small a second thread costs more than it brings, several times more on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a command that is to be refused: where it is not, it fails at once in place of training for hours."""

    def refuse(*_: object, **__: object) -> int:
        raise AssertionError("the command was not refused: it trains")

    monkeypatch.setattr("metarl.cli.train.execute", refuse)
    monkeypatch.setattr("metarl.cli.train.execute_together", refuse)


@pytest.fixture
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
