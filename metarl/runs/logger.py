"""What a run records: TensorBoard events and the same scalars as CSV, both over environment steps; and the progress."""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tensorboard.compat.proto.summary_pb2 import Summary

from metarl.runs import table
from metarl.runs.events import EventFile
from metarl.runs.files import open_regular, write_whole
from metarl.types import Metrics


class ScalarLog:
    """One row an iteration. Opened again on resume, it drops what lies past the checkpoint."""

    def __init__(
        self, directory: Path, *, iteration: int, env_steps: int, warn: Callable[[str], None] = warnings.warn
    ) -> None:
        """``iteration`` and ``env_steps`` are where the run stands: 0 and 0, or those of the checkpoint."""
        self._path = directory / table.NAME
        self._columns, self._rows = table.recover(self._path, iteration, warn)
        self._rewrite()
        self._events = EventFile(directory, purge_step=env_steps + 1)

    def write(self, iteration: int, env_steps: int, metrics: Metrics) -> None:
        for tag, value in metrics.items():
            self._events.add_scalar(tag, value, env_steps)
        self._events.flush()
        row = {"iteration": str(iteration), "env_steps": str(env_steps)}
        row |= {tag: f"{value:.9g}" for tag, value in metrics.items()}
        self._rows.append(row)
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            self._rewrite()
            return
        with open(open_regular(self._path, os.O_WRONLY | os.O_APPEND), "ab") as file:
            file.write(table.written(self._columns, [row], header=False))

    def note(self, summary: Summary) -> None:
        """Something for TensorBoard that is no scalar."""
        self._events.add_summary(summary)
        self._events.flush()

    def close(self) -> None:
        self._events.close()

    def _rewrite(self) -> None:
        write_whole(self._path, table.written(self._columns, self._rows, header=bool(self._columns)))


@runtime_checkable
class Display(Protocol):
    """What shows the progress of a run."""

    def update(self, iteration: int, metrics: Metrics) -> None: ...

    def close(self) -> None: ...


class ProgressDisplay:
    """A live bar on a terminal, one line that changes in a notebook, and one plain line an iteration elsewhere."""

    def __init__(self, total: int, *, start: int, console: Console, began: float | None = None) -> None:
        self._total, self._start, self._console = total, start, console
        self._began = time.monotonic() if began is None else began
        self._bar: Progress | None = None
        self._line: Any = None  # of a notebook
        if console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=console)
            self._task = self._bar.add_task("", total=total, completed=start)
            self._bar.start()

    def update(self, iteration: int, *metrics: Metrics, of: str = "") -> None:
        """``iteration`` counts from 0 and is complete; metrics of several runs are shown side by side, after whose they
        are."""
        complete = iteration + 1
        seconds = (time.monotonic() - self._began) / (complete - self._start) * (self._total - complete)
        skipped = "  update skipped" if any(one.get("train/skipped_updates") for one in metrics) else ""
        text = f"{of}{achieved(*metrics)}{skipped}  {rate(*metrics)}  ETA {_clock(seconds)}"
        if self._console.is_jupyter and not self._console.quiet:
            self._show_in_notebook(f"iteration {complete}/{self._total}  {text}")
        elif self._bar is None:
            self._console.print(f"iteration {complete}/{self._total}  {text}", highlight=False, soft_wrap=True)
        else:
            self._bar.update(self._task, completed=complete, description=text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show_in_notebook(self, text: str) -> None:
        """A saved notebook keeps the last line alone."""
        from IPython.display import TextDisplayObject, display

        class Line(TextDisplayObject):
            def __repr__(self) -> str:
                return str(self.data)

        if self._line is None:
            self._line = display(Line(text), display_id=True)
        else:
            self._line.update(Line(text))


def achieved(*metrics: Metrics) -> str:
    """What an iteration's tasks came to, before adaptation and after it; of several seeds the latter alone."""
    first = metrics[0]
    if "meta_train/return_trial" in first:
        return "return of a trial " + " ".join(f"{one['meta_train/return_trial']:.2f}" for one in metrics)
    measures = [measure for measure in ("return", "accuracy", "loss") if f"meta_train/{measure}_post" in first]
    measure, digits = measures[0], 2 if measures[0] == "return" else 3
    before = first.get(f"meta_train/{measure}_pre") if len(metrics) == 1 else None
    after = " ".join(f"{one[f'meta_train/{measure}_post']:.{digits}f}" for one in metrics)
    return f"{measure} " + ("" if before is None else f"before {before:.{digits}f} ") + f"after {after}"


def rate(*metrics: Metrics) -> str:
    """Environment steps or examples a second, of all together."""
    unit, tag = ("examples", "examples") if "time/examples_per_second" in metrics[0] else ("steps", "env_steps")
    return f"{sum(one[f'time/{tag}_per_second'] for one in metrics):,.0f} {unit}/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
