"""How far a run is, by its folder alone: iterations, the newest return, speed and time left."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metarl.runs import table
from metarl.runs.files import read_file
from metarl.runs.recorded import read_progress, recorded_rate, recorded_selection

MOST_BYTES = 1 << 20  # of a config
RETURNS = {"meta_train/return_trial": "a trial", "meta_train/return_post": "after adaptation"}
QUIET = 5, 120.0  # a run is silent after so many iterations' time without a row, and so many seconds at least


class Status(NamedTuple):
    """How far a run is."""

    name: str
    state: str
    """not begun, runs, silent for 12 min (its process may be gone), finished, stopped early, or what is wrong."""
    iterations: int = 0
    total: int = 0
    newest: str = ""
    """The newest return, and of what."""
    rate: float | None = None
    """Environment steps a second."""
    seconds_left: float | None = None

    @property
    def over(self) -> bool:
        return self.state in ("finished", "stopped early")

    def cells(self) -> tuple[str, ...]:
        """A row of a table, under :data:`HEADINGS`."""
        rate = "" if self.rate is None else f"{self.rate:,.0f}"
        left = "" if self.seconds_left is None or self.over else clock(self.seconds_left)
        counted = f"{self.iterations} of {self.total} iterations" if self.total else ""
        return self.name, self.state, counted, self.newest, rate, left

    def sentence(self) -> str:
        """The same as a line."""
        name, state, counted, newest, rate, left = self.cells()
        parts = [state, counted, f"return {newest}" if newest else "", f"{rate} steps/s" if rate else ""]
        return f"{name}: {', '.join(filter(None, [*parts, f'{left} left' if left else '']))}"


HEADINGS = ("run", "", "progress", "return", "steps/s", "left")


def status_of(folder: Path, *, now: float | None = None) -> Status:
    """How far the run in ``folder`` is; what cannot be read is said in its state."""
    try:
        config = json.loads(read_file(folder / "config.json", MOST_BYTES))
        total, patience = config["iterations"], config.get("patience", 0)
        if type(total) is not int or type(patience) is not int:
            raise ValueError("iterations and patience are no numbers")
    except OSError as error:
        return Status(folder.name, f"config.json cannot be read: {error.strerror}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return Status(folder.name, "config.json is damaged")
    rows = read_progress(folder)
    if not rows:
        return Status(folder.name, "not begun", total=total)
    rate, done = recorded_rate(rows), int(rows[-1]["iteration"]) + 1
    of_iteration = int(rows[-1]["env_steps"]) / done / rate if rate else 0.0
    left = (total - done) * of_iteration if rate else None
    state = "runs"
    if done >= total:
        state = "finished"
    elif patience and recorded_selection(rows).exhausted(patience):
        state = "stopped early"
    else:
        now = time.time() if now is None else now
        silent = now - _changed(folder, now)
        if silent > max(QUIET[0] * of_iteration, QUIET[1]):
            state = f"silent for {clock(silent)}"
    return Status(folder.name, state, done, total, newest_return(rows), rate, left)


def _changed(folder: Path, otherwise: float) -> float:
    try:
        return (folder / table.NAME).lstat().st_mtime
    except OSError:
        return otherwise


def newest_return(rows: Sequence[dict[str, str]]) -> str:
    """The return of the newest iteration, and what it is of."""
    found = (f"{float(rows[-1][tag]):.1f} {name}" for tag, name in RETURNS.items() if rows[-1].get(tag))
    return next(found, "")


def clock(seconds: float) -> str:
    """A duration for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
