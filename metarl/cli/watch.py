"""``metarl watch``: the progress of any runs in one live table, or in plain lines where there is no terminal."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metarl.cli.parse import parse
from metarl.reports.curves import expand
from metarl.runs.status import HEADINGS, Status, status_of

EVERY = {True: 2.0, False: 60.0}  # seconds between two looks, by whether there is a terminal


@dataclass(frozen=True)
class Watch:
    """Show the progress of runs, whoever trains them: iterations, newest return, speed, time left; until all are over.

    A live table on a terminal, elsewhere a line a run each minute. It reads the folders and changes nothing.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or folders of run folders, in which new runs are noticed."""
    every: float | None = None
    """Seconds between two looks; by default 2 on a terminal and 60 elsewhere."""
    once: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Look once."""

    def __call__(self, console: Console) -> None:
        if not self.runs:
            raise ValueError("runs is empty: give at least one run folder, or a folder of them")
        if self.every is not None and not 0 < self.every < 1e6:
            raise ValueError(f"every is {self.every}: use a number of seconds above 0")
        watch(self.runs, console, every=self.every, once=self.once)


def watch(
    runs: Sequence[Path],
    console: Console,
    *,
    every: float | None = None,
    once: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Shows how far the runs are until all of them are over, or once."""
    pause = EVERY[console.is_terminal] if every is None else every
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not once else None
    if live is not None:
        live.start()
    try:
        while True:
            found = [status_of(run) for run in expand(runs)]
            if live is not None:
                live.update(overview(found), refresh=True)
            elif console.is_terminal:
                console.print(overview(found))
            else:
                for status in found:
                    console.print(status.sentence(), markup=False, highlight=False, soft_wrap=True)
            if once or all(status.over or not status.total for status in found):  # what is no run is not waited for
                return
            wait(pause)
    finally:
        if live is not None:
            live.stop()


def overview(found: Sequence[Status]) -> Group:
    """A table of the runs, and how many are over."""
    rates = [status.rate for status in found if status.state == "runs" and status.rate]
    together = f", {sum(rates):,.0f} steps/s together" if len(rates) > 1 else ""
    over = sum(status.over for status in found)
    return Group(status_table([status.cells() for status in found]), Text(f"{over} of {len(found)} are over{together}"))


def status_table(rows: Sequence[Sequence[str]]) -> Table:
    """Rows of :meth:`metarl.runs.status.Status.cells`; those that failed in red."""
    table = Table(box=None)
    for position, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="right" if position > 3 else "left")
    for row in rows:
        table.add_row(*map(Text, row), style="red" if row[1] == "failed" else None)
    return table


def run(arguments: Sequence[str]) -> int:
    """``metarl watch`` without torch; returns the exit code."""
    try:
        parse(Watch, arguments, prog="metarl watch")(Console(markup=False, soft_wrap=not sys.stdout.isatty()))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130
    return 0
