"""Meta-testing: what a learner's policy earns on held-out tasks after 0, 1, 2 ... inner steps.

Every (task, inner step) gets the same fixed number of episodes, and every episode counts. Success is success at any
step of an episode. Tasks come from a seed of their own, which no training run draws from.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from envs.api import TaskDistribution, TaskEnv
from metarl.rollout import rollout
from metarl.streams import stream
from metarl.types import MetaLearner, TrajectoryBatch

HELD_OUT_SEED = 1_000_003
"""Streams of this seed draw the held-out tasks; runs refuse it."""


class MetaTest(NamedTuple):
    """What one policy earned."""

    returns: Float[Tensor, "task step episode"]
    """Undiscounted."""
    successes: Bool[Tensor, "task step episode"]


def held_out_tasks(tasks: TaskDistribution, num_tasks: int) -> Float[Tensor, "task ..."]:
    """The tasks a paper evaluated on where they are known, else ``num_tasks`` draws of the held-out seed."""
    published = tasks.published_tasks(num_tasks)
    return tasks.sample(num_tasks, stream(HELD_OUT_SEED, "tasks")) if published is None else published


def meta_test(
    learner: MetaLearner,
    state: Any,
    env: TaskEnv,
    task: Float[Tensor, "task ..."],
    *,
    scales: Sequence[float],
    seed: int,
    min_steps: int = 0,
) -> MetaTest:
    """Adapts to each task as training does, one inner step for each of ``scales``.

    Args:
        scales: the step size of each inner step, as a multiple of the learner's.
        seed: of the action noise; the reset noise is the environment's.
        min_steps: steps of experience that an inner step shall see at least; where episodes end early, worlds play
            further ones, which adaptation sees and the returns do not.

    Returns:
        Before any step and after each: the first episode of each world.
    """
    generator = stream(seed, "meta-test actions", device=str(env.device))
    env.set_tasks(task)
    actor, returns, successes = learner.actor(state, env.num_tasks), [], []
    for step in range(len(scales) + 1):
        batch, actor = rollout(env, learner.act, actor, 1, generator, min_steps=min_steps)
        first = first_episode(batch)
        returns.append((batch.reward * first).sum(-1))
        successes.append((batch.success & first).any(-1))
        if step < len(scales):
            actor = learner.adapt(state, actor, learner.credit(state, batch), scale=scales[step])
    return MetaTest(torch.stack(returns, dim=1), torch.stack(successes, dim=1))


def episode_returns(batch: TrajectoryBatch) -> Float[Tensor, "task env"]:
    """Undiscounted return over all valid steps of each world."""
    return (batch.reward * batch.valid).sum(-1)


def first_episode(batch: TrajectoryBatch) -> Bool[Tensor, "task env time"]:
    """The valid steps of each world's first episode."""
    ended = (batch.terminated | batch.truncated).long()
    return (ended.cumsum(-1) - ended == 0) & batch.valid


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
    """Mean or interquartile mean of one score a task, with the percentile bootstrap interval over tasks."""
    statistic = interquartile_mean if iqm else (lambda x: x.mean(-1))
    rng = np.random.default_rng(0)
    resampled = scores[rng.integers(len(scores), size=(resamples, len(scores)))]
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(statistic(resampled), [tail, 100 - tail])
    return Estimate(float(statistic(scores)), float(low), float(high))
