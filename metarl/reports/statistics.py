"""Statistics over tasks and over runs, each with its bootstrap interval.

Those over runs are defined by Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical
precipice", on scores [run, task]. There a task is an environment on which every run was trained by itself. Held-out
tasks of a meta-test are no such tasks, for one run earns all of its scores on them: its luck is in all of them. So
whole runs are resampled, within each task distribution (stratified bootstrap); task by task, the interval would be too
narrow.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
Scores = NDArray[np.float64]
"""One task distribution's [run, task]; any axes before these are of resamples."""
Values = NDArray[np.float64] | np.float64
"""Of a statistic: one, or one a resample."""


class Estimate(NamedTuple):
    """A statistic and its bootstrap interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: NDArray[np.float64]) -> Values:
    """The mean of the middle half, along the last axis; a score on the border counts in part (Agarwal et al. 2021)."""
    ordered = np.sort(scores, axis=-1)
    count = scores.shape[-1]
    edges = np.clip(np.arange(count + 1), count / 4, 3 * count / 4)
    weights = np.diff(edges)
    return (ordered * weights).sum(-1) / weights.sum()


def estimate(
    scores: NDArray[np.float64], *, iqm: bool, resamples: int = RESAMPLES, confidence: float = 0.95
) -> Estimate:
    """Mean or interquartile mean of one score a task, with the percentile bootstrap interval over tasks.

    Tasks whose score is NaN, since nothing of them could be used, are left out.
    """
    scores = scores[~np.isnan(scores)]
    if iqm:
        value, resampled = interquartile_mean(scores), interquartile_mean(scores[_drawn(len(scores), resamples)])
    else:
        value, resampled = scores.mean(), _counts(len(scores), resamples) @ scores / len(scores)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def determination(targets: NDArray[np.float64], predicted: NDArray[np.float64]) -> Estimate:
    """R², the share of the variance over tasks [task] that predictions explain, with its bootstrap interval over tasks.

    0 is the mean of all tasks as the prediction, 1 perfect; there is no lower bound.
    """
    counts, total = _counts(len(targets), RESAMPLES), len(targets)
    offset = targets - targets.mean()  # of numbers far from 0, squares lose their digits
    errors = counts @ np.square(targets - predicted)
    spread = counts @ np.square(offset) - np.square(counts @ offset) / total
    low, high = np.percentile(1 - errors[spread > 0] / spread[spread > 0], [2.5, 97.5])
    value = 1 - np.square(targets - predicted).sum() / np.square(offset).sum()
    return Estimate(float(value), float(low), float(high))


def stratified_estimate(scores: NDArray[np.float64], labels: list[str]) -> Estimate:
    """The mean over kinds of task, which weigh equally; resampled within each kind (stratified bootstrap)."""
    known = ~np.isnan(scores)
    strata = [scores[known & [label == kind for label in labels]] for kind in dict.fromkeys(labels)]
    draws = np.random.default_rng(0)
    resampled = np.mean(
        [stratum[draws.integers(len(stratum), size=(RESAMPLES, len(stratum)))].mean(1) for stratum in strata], axis=0
    )
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(float(np.mean([stratum.mean() for stratum in strata])), float(low), float(high))


def over_runs(strata: Sequence[Scores], *, iqm: bool = False, by_task: bool = False) -> Estimate:
    """Mean, or interquartile mean of all scores, over the runs of one or several task distributions.

    In the mean, task distributions weigh equally.

    Args:
        by_task: resample the runs of each task by themselves, as of tasks that share no run.
    """

    def statistic(strata: Sequence[Scores]) -> Values:
        if iqm:
            flat = [scores.reshape(*scores.shape[:-2], -1) for scores in strata]
            return interquartile_mean(np.concatenate(flat, axis=-1))
        return np.mean([scores.mean((-2, -1)) for scores in strata], axis=0)

    return _bootstrapped(strata, statistic, by_task=by_task)


def mean_band(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The 95 % interval of the mean over runs [run, point], at each point by itself: its lower and upper ends."""
    resampled = _counts(len(values), RESAMPLES) @ values / len(values)
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    return low, high


def profile(scores: Scores, thresholds: NDArray[np.float64]) -> list[Estimate]:
    """Performance profile: the share of scores, over runs and tasks, above each threshold (Agarwal et al. 2021)."""
    drawn = _resampled(scores, np.random.default_rng(0), by_task=False)
    found = []
    for threshold in thresholds:
        low, high = np.percentile((drawn > threshold).mean((1, 2)), [2.5, 97.5])
        found.append(Estimate(float((scores > threshold).mean()), float(low), float(high)))
    return found


def probability_of_improvement(ours: Scores, theirs: Scores) -> Estimate:
    """P(X > Y), the mean over tasks of the share of pairs of runs in which ours has the higher score; ties count half.

    By task it is the statistic U of Mann and Whitney, divided by the number of pairs.

    Args:
        ours: [run, task], theirs: another number of runs on the same tasks.
    """

    def statistic(both: Sequence[Scores]) -> Values:
        x, y = both[0][..., :, None, :], both[1][..., None, :, :]
        return ((x > y) + 0.5 * (x == y)).mean((-3, -2, -1))

    return _bootstrapped([ours, theirs], statistic, by_task=False)


def _bootstrapped(
    strata: Sequence[Scores], statistic: Callable[[Sequence[Scores]], Values], *, by_task: bool
) -> Estimate:
    """A statistic and its 95 % percentile interval."""
    draws = np.random.default_rng(0)
    low, high = np.percentile(statistic([_resampled(scores, draws, by_task=by_task) for scores in strata]), [2.5, 97.5])
    return Estimate(float(statistic(strata)), float(low), float(high))


def _resampled(scores: Scores, draws: np.random.Generator, *, by_task: bool) -> Scores:
    """Runs drawn with replacement [resample, run, task]."""
    runs, tasks = scores.shape
    drawn = draws.integers(runs, size=(RESAMPLES, runs, tasks if by_task else 1))
    return scores[drawn, np.arange(tasks)] if by_task else scores[drawn[..., 0]]


def _drawn(num_tasks: int, resamples: int) -> NDArray[np.int64]:
    """Which tasks each resample holds [resample, task]."""
    return np.random.default_rng(0).integers(num_tasks, size=(resamples, num_tasks))


@lru_cache(maxsize=1)
def _counts(num_tasks: int, resamples: int) -> NDArray[np.float64]:
    """How often each resample holds a task [resample, task]: the means of many resamples are one product."""
    return np.stack([np.bincount(row, minlength=num_tasks) for row in _drawn(num_tasks, resamples)]).astype(float)
