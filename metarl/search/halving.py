"""Successive halving in cohorts (Jamieson & Talwalkar 2016; as brackets, Li et al. 2018), as pure functions.

The trials of a cohort all train to a rung before any goes on, and of their values alone it follows which do. So neither
the number of workers nor who finishes first changes a decision; the price is that workers without a run wait at a rung.
Asynchronous halving does not wait, and its decisions depend on the order of arrival.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple


def rung_lengths(iterations: int, rungs: int, keep: int) -> tuple[int, ...]:
    """Iterations at which trials are compared: the last is the whole length, each before it 1/keep of the next.

    Rungs that would coincide are one.
    """
    return tuple(sorted({max(1, math.ceil(iterations / keep**k)) for k in range(rungs)}))


class Stage(NamedTuple):
    """Where a cohort stands."""

    rung: int
    """The index of the rung that is being trained to; the number of rungs once all is done."""
    training: tuple[int, ...]
    """Trials that go to this rung, of which some may have reached it."""
    finished: tuple[int, ...]
    """Trials that reached the last rung, best first."""


def stage(values: Mapping[int, Sequence[float]], num_rungs: int, keep: int) -> Stage:
    """Where a cohort stands, by the values of its trials at the rungs they reached.

    Args:
        values: by trial; -inf is a trial that diverged, which never goes on. Larger is better, and of equals the
            earlier trial.
        keep: one in ``keep`` trials goes on, at least one.
    """
    training = tuple(sorted(values))
    for rung in range(num_rungs):
        if not training or any(len(values[trial]) <= rung for trial in training):
            return Stage(rung if training else num_rungs, training, ())
        ranked = sorted(training, key=lambda trial: (-values[trial][rung], trial))
        sound = [trial for trial in ranked if values[trial][rung] > -math.inf]
        if rung == num_rungs - 1:
            return Stage(num_rungs, (), tuple(sound))
        training = tuple(sorted(sound[: max(1, len(training) // keep)]))
    raise ValueError("num_rungs is 0: use at least 1")
