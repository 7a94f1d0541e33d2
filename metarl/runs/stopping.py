"""SIGTERM and Ctrl-C as an exception, at once or after a section that must not be cut."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """A signal asked the run to end; no ``except Exception`` on its way may take it for a failure."""


class StopOnSignal:
    """While entered, the first signal raises :class:`Stopped`; later ones change nothing.

    Python tells the main thread alone of signals; entered in another one, it does nothing.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        """The signal that came, if one did."""
        self._postponed = False

    def __enter__(self) -> "StopOnSignal":
        main = threading.current_thread() is threading.main_thread()
        caught = (signal.SIGTERM, signal.SIGINT) if main else ()
        self._before = {number: signal.signal(number, self._handle) for number in caught}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

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
