"""The progress of a study's runs: a live table on a terminal, plain lines elsewhere."""

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from metarl.cli.watch import status_table
from metarl.runs.status import Status, clock, status_of
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
                    self._say(status_of_child(child).sentence())

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
        rows = [status_of_child(child).cells() for child in work.running]
        rows += [(name, "failed", reason, "", "", "") for name, reason in work.failed.items()]
        counts = f"{len(work.finished)} of {self._total} finished, {len(work.waiting)} waiting"
        return Group(status_table(rows), Text(counts))


def status_of_child(child: Child) -> Status:
    """How far a process is: iterations, the newest return, speed and time left; of a test, for how long it goes on."""
    found = status_of(child.run.folder)._replace(name=child.run.name)
    if child.verb == "evaluate":
        return Status(child.run.name, f"being tested for {clock(time.monotonic() - child.began)}")
    total = child.run.row.experiment.iterations  # which the folder may not say yet
    return found._replace(total=total, state="trains")
