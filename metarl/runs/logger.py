"""What a run records: TensorBoard events and the same scalars as CSV, both over environment steps; and the progress."""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


class ProgressDisplay:
    """A live bar on a terminal, one line that changes in a notebook, and one plain line an iteration elsewhere."""

    def __init__(self, total: int, *, start: int, console: Console) -> None:
        self._total, self._start, self._console = total, start, console
        self._began = time.monotonic()
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

    def update(self, iteration: int, metrics: Metrics) -> None:
        """``iteration`` counts from 0 and is complete."""
        complete = iteration + 1
        seconds = (time.monotonic() - self._began) / (complete - self._start) * (self._total - complete)
        skipped = "  update skipped" if metrics.get("train/skipped_updates") else ""
        text = f"{achieved(metrics)}{skipped}  {rate(metrics)}  ETA {_clock(seconds)}"
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


def achieved(metrics: Metrics) -> str:
    """What an iteration's tasks came to, before adaptation and after it."""
    if (trial := metrics.get("meta_train/return_trial")) is not None:
        return f"return of a trial {trial:.2f}"
    measures = [measure for measure in ("return", "accuracy", "loss") if f"meta_train/{measure}_post" in metrics]
    measure, digits = measures[0], 2 if measures[0] == "return" else 3
    before, after = metrics.get(f"meta_train/{measure}_pre"), metrics[f"meta_train/{measure}_post"]
    return f"{measure} " + ("" if before is None else f"before {before:.{digits}f} ") + f"after {after:.{digits}f}"


def rate(metrics: Metrics) -> str:
    """Environment steps or examples a second."""
    examples = metrics.get("time/examples_per_second")
    return f"{metrics['time/env_steps_per_second']:,.0f} steps/s" if examples is None else f"{examples:,.0f} examples/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
