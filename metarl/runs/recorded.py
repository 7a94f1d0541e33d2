"""What ``progress.csv`` tells of a run, without torch: its rows, its speed, and its best validation so far."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import NamedTuple

from metarl.runs import table
from metarl.runs.files import read_file

LARGEST = 2**62  # of a counter; steps are added to it
RECENT = 20  # iterations
SCORE = "validation/score"  # the column that checkpoints are chosen by


def read_progress(folder: Path) -> list[dict[str, str]]:
    """The whole rows of ``progress.csv``; none where there is no such file yet."""
    path = folder / "progress.csv"
    try:
        stat = path.lstat()
    except OSError:
        return []
    return _progress_of(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _progress_of(path: Path, changed: int, size: int) -> list[dict[str, str]]:
    try:
        _, rows, _ = table.parse(read_file(path, table.MOST_BYTES), LARGEST)
    except OSError:
        return []
    return [row for row in rows if all(map(_is_number, row.values()))]


def _is_number(cell: str) -> bool:
    """Or empty, where the iteration has none."""
    try:
        float(cell or 0)
    except ValueError:
        return False
    return True


def recorded_rate(progress: Sequence[dict[str, str]]) -> float | None:
    """Environment steps a second of a run's last iterations, their median; None where it has none."""
    rates = [float(rate) for row in progress[-RECENT:] if (rate := row.get("time/env_steps_per_second"))]
    return median(rates) if rates else None


class Selection(NamedTuple):
    """The best validation so far; later ones are better where their score is higher: of equals the first stays."""

    score: float = -math.inf
    iteration: int = 0
    """Iterations complete at the best one; 0: there was none yet."""
    worse: int = 0
    """Validations since."""

    def after(self, score: float, iteration: int) -> "Selection":
        """With one more validation; of a score that is NaN, none of whose episodes could be used, nothing is best."""
        return Selection(score, iteration) if score > self.score else self._replace(worse=self.worse + 1)

    def exhausted(self, patience: int) -> bool:
        """Whether ``patience`` validations in a row brought nothing better; never with a patience of 0."""
        return 0 < patience <= self.worse


def recorded_selection(rows: Sequence[Mapping[str, str]]) -> Selection:
    """The same from the rows of ``progress.csv``."""
    selection = Selection()
    for row in rows:
        if cell := row.get(SCORE):
            selection = selection.after(float(cell), int(row["iteration"]) + 1)
    return selection
