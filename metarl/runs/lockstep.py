"""Runs of several seeds in one process: their rollouts are played together, all else is each run's own."""

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console

from metarl.lockstep import Turns, present
from metarl.runs.experiment import Experiment
from metarl.runs.logger import ProgressDisplay
from metarl.runs.session import execute
from metarl.runs.stopping import StopOnSignal, Stopped, install, reinstall
from metarl.types import Metrics


class SeedConsole(Console):
    """Lines with the seed before them."""

    def __init__(self, seed: int) -> None:
        super().__init__(soft_wrap=True, markup=False, highlight=False, force_terminal=False, force_jupyter=False)
        self._seed = seed

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(f"seed {self._seed}:", *objects, **options)


class Board:
    """:class:`metarl.runs.logger.Display` of each seed: the progress of all is one line, or one bar."""

    def __init__(self, total: int, seeds: Sequence[int], console: Console) -> None:
        self._total, self._seeds, self._console = total, seeds, console
        self._began = time.monotonic()
        self._found: dict[int, dict[int, Metrics]] = {}
        self._display: ProgressDisplay | None = None

    def update(self, iteration: int, metrics: Metrics) -> None:
        """Nothing yet: the others' are to be shown with it."""

    def note(self, number: int, iteration: int, metrics: Metrics) -> None:
        self._found.setdefault(iteration, {})[number] = metrics

    def show(self, iteration: int) -> None:
        """What was noted of an iteration, once: the first seed that no other is behind calls it."""
        if (found := self._found.pop(iteration, None)) is None:
            return
        if self._display is None:
            self._display = ProgressDisplay(self._total, start=iteration - 1, console=self._console, began=self._began)
        names = " ".join(str(self._seeds[number]) for number in sorted(found))
        of = f"seed{'s' * (len(found) > 1)} {names}: "
        self._display.update(iteration - 1, *(found[number] for number in sorted(found)), of=of)

    def close(self) -> None:
        """Of one seed."""

    def close_all(self) -> None:
        if self._display is not None:
            self._display.close()


def execute_together(experiments: Sequence[Experiment], runs: Sequence[Path], *, console: Console | None = None) -> int:
    """Trains experiments that differ in their seeds, each in its own folder, as :func:`execute` would one by one.

    A run that fails ends alone; the others go on.

    Returns:
        The exit code: 0 when all are complete, 128 + the signal's number when stopped by it.

    Raises:
        Exception: the first run's that failed, after the others are through.
    """
    console = Console(soft_wrap=True, markup=False) if console is None else console
    with StopOnSignal() as stopping, contextlib.suppress(Stopped):
        experiments[0].warm()  # minutes, in which no seat would hear a signal
    if stopping.signal is not None:
        return 128 + stopping.signal
    board = Board(experiments[0].iterations, [one.seed for one in experiments], console)
    stoppings = [StopOnSignal() for _ in runs]

    def hear(number: int, frame: FrameType | None) -> None:
        for stopping in stoppings:
            stopping.signal = stopping.signal or number

    def check(number: int) -> None:
        if stoppings[number].signal is not None:
            raise Stopped

    def work(number: int) -> Callable[[], int]:
        def advance(iteration: int, metrics: Metrics) -> None:
            board.note(number, iteration, metrics)
            if (seat := present()) is not None:
                seat.catch_up(iteration)
            board.show(iteration)

        def run() -> int:
            try:
                return execute(
                    experiments[number],
                    runs[number],
                    console=SeedConsole(experiments[number].seed),
                    callbacks=[advance],
                    stopping=stoppings[number],
                    display=board,
                )
            except Exception as error:
                with contextlib.suppress(OSError):
                    print(f"{runs[number]} ends here: {error}", file=sys.stderr)
                raise

        return run

    before = install(hear)
    try:
        seats = Turns([work(number) for number in range(len(runs))], check=check).run()
    finally:
        reinstall(before)
        with contextlib.suppress(OSError):  # of a closed terminal
            board.close_all()
    for seat in seats:
        if seat.error is not None:
            raise seat.error
    return max(seat.result for seat in seats)
