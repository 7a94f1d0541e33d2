"""The progress of a study's runs: a live table on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from metarl.runs.pace import recorded_rate
from metarl.runs.studies import env_steps
from metarl.runs.study_folders import Standing, standing
from metarl.runs.study_work import Child, Work

EVERY = {True: 1.0, False: 60.0}  # seconds between two looks, by whether there is a terminal


class StudyProgress:
    """Shows what :class:`Work` is at; the caller calls :meth:`show` as often as it likes."""

    def __init__(self, work: Work, console: Console) -> None:
        self._work, self._console = work, console
        self._total = len(work.waiting)
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._shown, self._known = time.monotonic() if self._live is None else 0.0, set[str]()

    def __enter__(self) -> "StudyProgress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, work: Work) -> None:
        now = time.monotonic()
        if self._live is None:
            self._changes()
        if now - self._shown >= EVERY[self._live is not None]:
            self._shown = now
            if self._live is not None:
                self._live.update(self._table(), refresh=True)
            else:
                for child in work.running:
                    self._say(f"{child.run.name}: {progress_of(child)}")

    def _changes(self) -> None:
        work = self._work
        told = {f"{child.verb} {child.run.name} begins" for child in work.running}
        told |= {f"{run.name} is finished" for run in work.finished}
        told |= {f"{name} failed: {reason}" for name, reason in work.failed.items()}
        for line in sorted(told - self._known):
            self._say(line)
        self._known |= told

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, soft_wrap=True)

    def _table(self) -> Group:
        work = self._work
        table = Table(box=None)
        for heading in ("run", "", "progress"):
            table.add_column(heading)
        for child in work.running:
            table.add_row(*map(Text, (child.run.name, child.verb, progress_of(child))))
        for name, reason in work.failed.items():
            table.add_row(*map(Text, (name, "failed", reason)), style="red")
        return Group(table, Text(f"{len(work.finished)} of {self._total} finished, {len(work.waiting)} waiting"))


def progress_of(child: Child) -> str:
    """How far a process is: iterations, the newest return, speed and time left."""
    state = standing(child.run)
    if child.verb == "evaluate":
        return f"being tested for {clock(time.monotonic() - child.began)}"
    text = f"{state.iterations} of {state.total} iterations"
    if not state.progress:
        return text
    return text + newest(state) + time_left(child, state)


def newest(state: Standing) -> str:
    """The return of the newest iteration."""
    row = state.progress[-1]
    tags = {"meta_train/return_trial": "a trial", "meta_train/return_post": "after adaptation"}
    return next((f", return {float(row[tag]):.1f} {name}" for tag, name in tags.items() if row.get(tag)), "")


def time_left(child: Child, state: Standing) -> str:
    rate = recorded_rate(state.progress)
    if rate is None:
        return ""
    seconds = env_steps(child.run.row.experiment) * (1 - state.iterations / state.total) / rate
    return f", {rate:,.0f} steps/s, {clock(seconds)} left"


def clock(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
