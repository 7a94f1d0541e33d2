"""What stands beside learning curves: published end points, and other curves from a file."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from metarl.reports.published import published, published_trial
from metarl.runs.experiment import Experiment
from metarl.runs.files import read_file
from metarl.types import remembers

MOST_BYTES = 1 << 26
STEP = re.compile(r"meta_(?:train|test)/return_(?:step_(\d+)|(pre)|(post))")


class Line(NamedTuple):
    """A curve of others, or where there are no env steps one number."""

    label: str
    values: tuple[float, ...]
    env_steps: tuple[float, ...] = ()
    task: str = ""
    """Title of the panels it belongs to; empty: of all."""


def published_lines(experiment: Experiment, tag: str) -> list[Line]:
    """Published returns of exactly this task, for tags that say how much adaptation they come after."""
    if tag.endswith("/return_trial"):
        found = published_trial(experiment.task, experiment.episodes_per_env)
        rows = found.returns.items() if found is not None else ()
        return [_line(method, found.source, value, "a trial") for method, value in rows if found is not None]
    known, match = published(experiment.task), STEP.fullmatch(tag)
    if known is None or match is None or remembers(experiment.learner):
        return []
    step = 0 if match[2] else experiment.learner.adapt_steps if match[3] else int(match[1])
    after = f"{step} step{'' if step == 1 else 's'}"
    return [
        _line(name, known.source, values[step], after) for name, values in known.returns.items() if step < len(values)
    ]


def _line(method: str, source: str, value: float, after: str) -> Line:
    return Line(f"{method}, end point of {source.partition(',')[0]}, after {after}, test tasks", (value,))


def read_beside(path: Path) -> list[Line]:
    """Curves of a CSV file with the columns label, env_steps and value, and perhaps task, the title of a panel.

    A label without env_steps is a number, drawn over the whole width.

    Raises:
        ValueError: it cannot be read, lacks a column, or has a cell that is no number.
    """
    try:
        with io.StringIO(read_file(path, MOST_BYTES).decode(), newline="") as file:
            rows = list(csv.DictReader(file, restval=""))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"beside is {path}: it cannot be read ({error})") from error
    if not rows or not {"label", "env_steps", "value"} <= rows[0].keys():
        raise ValueError(f"beside is {path}: it needs a header with label, env_steps and value, and rows")
    lines: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for row in rows:
        lines.setdefault((row["label"], row.get("task", "")), []).append((row["env_steps"], row["value"]))
    try:
        found = [
            Line(
                label,
                tuple(float(value) for _, value in points),
                tuple(float(steps) for steps, _ in points if steps),
                task,
            )
            for (label, task), points in lines.items()
        ]
        for line in found:
            if len(line.env_steps) not in (0, len(line.values)) or not (line.env_steps or len(line.values) == 1):
                raise ValueError(f"{line.label} has {len(line.values)} values and {len(line.env_steps)} env_steps")
        return found
    except ValueError as error:
        raise ValueError(f"beside is {path}: {error}") from error
