"""Learning curves as runs recorded them: read from ``progress.csv``, and averaged over seeds at equal env steps."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.reports.statistics import mean_band
from metarl.runs import table
from metarl.runs.files import read_file

Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Environment steps in ascending order, and finite values."""


class Spread(NamedTuple):
    """Curves of several seeds at the environment steps that all of them cover."""

    env_steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    """The lowest seed at each step, or the lower end of the interval."""
    high: NDArray[np.float64]
    """The highest seed at each step, or the upper end of the interval."""


def smoothed(curve: Curve, env_steps: int) -> Curve:
    """Each point as the mean of those in the ``env_steps`` up to it, itself included; nothing later is looked at."""
    steps, values = curve
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first = np.searchsorted(steps, steps - env_steps, side="right")
    last = np.arange(1, len(steps) + 1)
    return steps, (sums[last] - sums[first]) / (last - first)


def align(curves: Sequence[Curve], *, interval: bool = False) -> Spread | None:
    """Mean and range, or 95 % interval of the mean, over seeds on the union of their env steps.

    Values between a seed's own steps are interpolated linearly, within the range of all.

    None where no step lies within every curve: nothing is extrapolated.
    """
    first, last = max(steps[0] for steps, _ in curves), min(steps[-1] for steps, _ in curves)
    if first > last:
        return None
    grid = np.unique(np.concatenate([steps for steps, _ in curves]))
    grid = grid[(grid >= first) & (grid <= last)]
    values = np.stack([np.interp(grid, *curve) for curve in curves])
    bounds = mean_band(values) if interval else (values.min(0), values.max(0))
    return Spread(grid, values.mean(0), *bounds)


def expand(runs: Sequence[Path]) -> list[Path]:
    """The same paths, but for a folder that is no run and holds some: those, in the order of their names."""
    expanded: list[Path] = []
    for run in runs:
        inside = [] if (run / "config.json").exists() else sorted(run.glob("*/config.json"))
        expanded += [config.parent for config in inside] or [run]
    return list(dict.fromkeys(expanded))


def read_scalars(run: Path, tags: Sequence[str]) -> dict[str, Curve]:
    """Those of ``tags`` that a run recorded: environment steps and values of the iterations that have a finite one.

    A last row that was torn is left out. Rows that later ones went back behind, as a resumed run does, are replaced.

    Raises:
        ValueError: ``progress.csv`` is missing, damaged, or has a finite value of none of the tags.
    """
    path = run / table.NAME
    if not os.path.lexists(path):
        raise ValueError(f"{run} has nothing to plot yet: it has no progress.csv")
    rows = _read_rows(path)
    recorded = sorted({tag for row in rows for tag, value in row.items() if value})
    curves = {tag: _curve(path, rows, tag) for tag in dict.fromkeys(tags) if tag in recorded}
    found = {tag: curve for tag, curve in curves.items() if len(curve[0])}
    if not found:
        has = f"no finite value of {', '.join(curves)}" if curves else ", ".join(recorded) or "nothing yet"
        raise ValueError(f"tag is {', '.join(tags)}: {path} has {has}")
    return found


def _read_rows(path: Path) -> list[dict[str, str]]:
    """Rows by column.

    Raises:
        ValueError: no regular file, no table, no column env_steps, or a row with more or fewer cells than columns.
    """
    rows: list[dict[str, str]] = []
    try:
        with io.StringIO(read_file(path, table.MOST_BYTES).decode(), newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            if not header:
                raise ValueError(f"{path} is empty: the run has recorded no iteration")
            if "env_steps" not in header or len(set(header)) < len(header):
                raise ValueError(f"{path} has a damaged header: its first line names no column env_steps, or one twice")
            torn = 0
            for cells in reader:
                if torn:
                    raise ValueError(f"{path} is damaged: line {torn} has not as many cells as the header")
                if len(cells) == len(header):
                    rows.append(dict(zip(header, cells, strict=True)))
                elif cells:
                    torn = reader.line_num
            if torn and len(cells) > len(header):
                raise ValueError(f"{path} is damaged: line {torn} has more cells than the header")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): bring the run's own back") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return rows


def _curve(path: Path, rows: list[dict[str, str]], tag: str) -> Curve:
    points: list[tuple[float, float]] = []
    for row in rows:
        if not row[tag]:
            continue
        try:
            steps, value = float(row["env_steps"]), float(row[tag])
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error} (env_steps or {tag})") from error
        while points and points[-1][0] >= steps:
            points.pop()
        if np.isfinite([steps, value]).all():
            points.append((steps, value))
    steps_and_values = np.array(points, dtype=np.float64).reshape(-1, 2)
    return steps_and_values[:, 0], steps_and_values[:, 1]
