"""SIGTERM, SIGHUP and Ctrl-C as an exception, at once or after a section that must not be cut."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NAMES = ("SIGTERM", "SIGINT", "SIGHUP")  # the last one of a closed terminal; not every system has it


def install(handler: Any) -> dict[int, Any]:
    """Handles the signals that ask a process to end, and returns what handled them before.

    None outside the main thread, where Python has no signals; and none that the parent wants ignored (``nohup``).
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in heard}


def reinstall(before: dict[int, Any]) -> None:
    """Undoes :func:`install`."""
    for number, handler in before.items():
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


class Stopped(BaseException):
    """A signal asked the run to end; no ``except Exception`` on its way may take it for a failure."""


class StopOnSignal:
    """While entered, the first signal raises :class:`Stopped`; later ones change nothing."""

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that came, if one did."""
        self._postponed = False

    def __enter__(self) -> "StopOnSignal":
        self._before = install(self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        reinstall(self._before)

    @contextmanager
    def postponed(self) -> Iterator[None]:
        """A signal that comes inside raises at the end."""
        came_before = self.signal
        self._postponed = True
        try:
            yield
        finally:
            self._postponed = False
        if self.signal is not None and came_before is None:
            raise Stopped

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            if not self._postponed:
                raise Stopped
