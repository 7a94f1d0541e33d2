"""Statistics over tasks, each with its bootstrap interval."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Estimate(NamedTuple):
    """A statistic over tasks and its bootstrap interval."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: NDArray[np.float64]) -> NDArray[np.float64] | np.float64:
    """The mean of the middle half, along the last axis; a score on the border counts in part (Agarwal et al. 2021)."""
    ordered = np.sort(scores, axis=-1)
    count = scores.shape[-1]
    edges = np.clip(np.arange(count + 1), count / 4, 3 * count / 4)
    weights = np.diff(edges)
    return (ordered * weights).sum(-1) / weights.sum()


def estimate(scores: NDArray[np.float64], *, iqm: bool, resamples: int = 2000, confidence: float = 0.95) -> Estimate:
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


def stratified_estimate(scores: NDArray[np.float64], labels: list[str]) -> Estimate:
    """The mean over kinds of task, which weigh equally; resampled within each kind (stratified bootstrap)."""
    known = ~np.isnan(scores)
    strata = [scores[known & [label == kind for label in labels]] for kind in dict.fromkeys(labels)]
    draws = np.random.default_rng(0)
    resampled = np.mean(
        [stratum[draws.integers(len(stratum), size=(2000, len(stratum)))].mean(1) for stratum in strata], axis=0
    )
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Estimate(float(np.mean([stratum.mean() for stratum in strata])), float(low), float(high))


def _drawn(num_tasks: int, resamples: int) -> NDArray[np.int64]:
    """Which tasks each resample holds [resample, task]."""
    return np.random.default_rng(0).integers(num_tasks, size=(resamples, num_tasks))


@lru_cache(maxsize=1)
def _counts(num_tasks: int, resamples: int) -> NDArray[np.float64]:
    """How often each resample holds a task [resample, task]: the means of many resamples are one product."""
    return np.stack([np.bincount(row, minlength=num_tasks) for row in _drawn(num_tasks, resamples)]).astype(float)
