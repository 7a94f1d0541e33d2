"""A study: the runs behind one published table or figure, as a value.

A row is an experiment, repeated with several seeds, and what was published of it; a column says where its number is.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from metarl.runs.experiment import Experiment

NO_COMPARISON = ("--pretrain-iterations", "0")
SECONDS = ("time/sampling_seconds", "time/optimization_seconds")  # of an iteration, columns of progress.csv


@dataclass(frozen=True)
class Column:
    """A number of the table: from ``evaluation.json``, or from the last iterations of ``progress.csv``."""

    name: str
    """Heading."""
    paths: tuple[tuple[str | int, ...], ...] = ()
    """Where in ``evaluation.json``, the first that is there; ``*`` in a key is the learner's name."""
    tag: str = ""
    """Column of ``progress.csv`` in place of paths."""
    last: int = 5
    """Iterations at the end of training that a tag is averaged over."""
    within_steps: float = math.inf
    """Environment steps of training after which a tag no longer counts: what a learner reaches within them."""
    within_minutes: float = math.inf
    """Minutes of sampling and updates after which a tag no longer counts; of a run that ended before, its end does."""
    percent: bool = False
    """Whether the number is a share, shown in per cent."""
    digits: int = 1
    """Decimals shown."""

    def read(self, record: dict[str, Any], progress: Sequence[dict[str, str]]) -> float | None:
        """The number in a run's evaluation and progress; None where they do not have it."""
        if self.tag:
            values = [float(row[self.tag]) for row in self._within(progress) if row.get(self.tag)][-self.last :]
            return sum(values) / len(values) if values else None
        learner = str(record.get("protocol", {}).get("algorithm", ""))
        return next((value for path in self.paths if (value := _follow(record, path, learner)) is not None), None)

    def _within(self, progress: Sequence[dict[str, str]]) -> list[dict[str, str]]:
        """The iterations up to the bounds."""
        spent = itertools.accumulate(sum(float(row.get(name) or 0.0) for name in SECONDS) for row in progress)
        pairs = zip(progress, spent, strict=True)
        return [
            row
            for row, seconds in pairs
            if float(row.get("env_steps") or 0.0) <= self.within_steps and seconds <= 60 * self.within_minutes
        ]


def _follow(record: Any, path: tuple[str | int, ...], learner: str) -> float | None:
    for key in path:
        try:
            record = record[key.replace("*", learner) if isinstance(key, str) else key]
        except (KeyError, IndexError, TypeError):
            return None
    return float(record) if isinstance(record, int | float) else None


@dataclass(frozen=True)
class Reported:
    """What a publication reports for a row."""

    values: tuple[float | None, ...]
    """In the order of the study's columns; of shares, 1 is all."""
    source: str
    """Publication, and where in it."""
    protocol: str
    """How the numbers were taken, as far as it differs from ours."""
    env_steps: str = ""
    """Environment steps of a run."""
    method: str = ""
    """Whose numbers these are, where it is not the row's own method."""


@dataclass(frozen=True)
class Row:
    """A line of the table: an experiment, tested by ``metarl evaluate``."""

    name: str
    """Of its run folders, and for ``--only``."""
    label: str
    """What the table calls it."""
    experiment: Experiment
    """Its seed does not matter."""
    reported: tuple[Reported, ...] = ()
    evaluate: tuple[str, ...] = NO_COMPARISON
    """Options of ``metarl evaluate``."""
    code: Path | None = None
    """The file that defines its learner, where this library does not; the study's own file runs it, too."""


@dataclass(frozen=True)
class Study:
    """A published table or figure."""

    name: str
    title: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    tags: tuple[str, ...] = ("meta_train/return_post",)
    """Columns of ``progress.csv`` that the plot shows."""
    note: str = ""
    """How the numbers were taken; stands below the table."""
    seeds: int = 3
    """Runs of each row, where the command line does not say another number."""

    def __post_init__(self) -> None:
        """Refuses rows that could not be told apart or do not fit the columns."""
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"rows of {self.name} are {', '.join(names)}: give each a name of its own")
        for row in self.rows:
            for reported in row.reported:
                if len(reported.values) != len(self.columns):
                    raise ValueError(
                        f"{row.name} of {self.name} reports {len(reported.values)} numbers: "
                        f"give one for each of its {len(self.columns)} columns"
                    )

    def only(self, patterns: Sequence[str]) -> "Study":
        """The rows whose names match one of the patterns (``*`` is anything); all where there are no patterns.

        Raises:
            ValueError: a pattern that no row matches.
        """
        for pattern in patterns:
            if not any(fnmatch(row.name, pattern) for row in self.rows):
                raise ValueError(f"only is {pattern!r}: {self.name} has {', '.join(row.name for row in self.rows)}")
        rows = tuple(row for row in self.rows if not patterns or any(fnmatch(row.name, p) for p in patterns))
        return replace(self, rows=rows)


def steps_of_iteration(experiment: Experiment) -> int:
    """Environment steps of an iteration, fewer where episodes end early."""
    batch = experiment.num_tasks * experiment.episodes * experiment.task.horizon
    return (1 + experiment.learner.adapt_steps) * batch


def env_steps(experiment: Experiment) -> int:
    """Environment steps of a whole run, fewer where episodes end early."""
    return experiment.iterations * steps_of_iteration(experiment)
