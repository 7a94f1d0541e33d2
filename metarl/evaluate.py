"""Meta-testing: what a policy earns on held-out tasks while it adapts.

Adaptation goes by steps: 0, 1, 2 ... inner steps of a gradient learner, or the episodes of a trial of an agent that
remembers. Every (task, step) gets the same fixed number of episodes, and every episode counts. Success is success at
any step of an episode. Tasks come from a seed of their own, which no training run draws from.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from envs.api import TaskDistribution, TaskEnv
from metarl.rollout import Act, rollout
from metarl.streams import stream
from metarl.types import Agent, MetaLearner, TrajectoryBatch

HELD_OUT_SEED = 1_000_003
"""Streams of this seed draw the held-out tasks; runs refuse it."""


class MetaTest(NamedTuple):
    """What one policy earned."""

    returns: Float[Tensor, "task step episode"]
    """Undiscounted."""
    solved_after: Int[Tensor, "task step episode"]
    """Steps until the first success of the episode; 0 where there was none."""

    @property
    def successes(self) -> Bool[Tensor, "task step episode"]:
        """Success at any step of the episode."""
        return self.solved_after > 0


def held_out_tasks(tasks: TaskDistribution, num_tasks: int) -> Float[Tensor, "task ..."]:
    """The tasks a paper evaluated on where they are known, else ``num_tasks`` draws of the held-out seed."""
    published = tasks.published_tasks(num_tasks)
    return tasks.sample(num_tasks, stream(HELD_OUT_SEED, "tasks")) if published is None else published


def meta_test(
    agent: Agent,
    state: Any,
    env: TaskEnv,
    task: Float[Tensor, "task ..."],
    *,
    scales: Sequence[float] = (),
    episodes: int = 1,
    greedy: bool = False,
    seed: int,
    min_steps: int = 0,
) -> MetaTest:
    """Adapts to each task as training does: one inner step for each of ``scales``, or over the episodes of a trial.

    Args:
        scales: the step size of each inner step, as a multiple of the learner's; none for an agent that remembers.
        episodes: episodes that a world plays before and after each inner step, remembering from one to the next.
        greedy: take the most likely action, or the mean, in place of a sample.
        seed: of the action noise; the environment's noise is its own.
        min_steps: steps of experience that an inner step shall see at least; where episodes end early, worlds play
            further ones, which adaptation sees and the returns do not.

    Returns:
        A step for each episode before any inner step and after each; an episode for each world.
    """
    generator = stream(seed, "meta-test actions", device=str(env.device))
    act = greedily(agent.act) if greedy else agent.act
    env.set_tasks(task)
    actor, returns, solved = agent.actor(state, env.num_tasks), [], []
    for step in range(len(scales) + 1):
        batch, actor = rollout(env, act, actor, episodes, generator, min_steps=min_steps)
        returns.append(by_episode(batch, batch.reward, episodes))
        solved.append(solved_after(batch, episodes))
        if step < len(scales):
            learner = cast(MetaLearner, agent)  # only learners with inner steps are given scales
            actor = learner.adapt(state, actor, learner.credit(state, batch), scale=scales[step])
    return MetaTest(torch.cat(returns, dim=1), torch.cat(solved, dim=1))


def greedily(act: Act) -> Act:
    """The same policy, always taking its most likely action (of a Gaussian: the mean)."""

    def most_likely(*arguments: Any) -> tuple[Tensor, Any, Any]:
        _, dist, actor = act(*arguments)
        return dist.mode(), dist, actor

    return most_likely


def by_episode(
    batch: TrajectoryBatch, x: Float[Tensor, "task env time"], episodes: int
) -> Float[Tensor, "task episode env"]:
    """The sum of ``x`` over the valid steps of each of the first ``episodes`` episodes of every world."""
    episode, counted = _episode_of_step(batch, episodes)
    sums = x.new_zeros(*x.shape[:2], episodes)
    sums.scatter_add_(-1, episode, x.where(counted, 0.0))
    return sums.transpose(1, 2)


def solved_after(batch: TrajectoryBatch, episodes: int) -> Int[Tensor, "task episode env"]:
    """Steps until the first success in each of the first ``episodes`` episodes of every world; 0 without one."""
    episode, counted = _episode_of_step(batch, episodes)
    never = batch.clock.max() + 2
    steps = (batch.clock + 1).where(batch.success & counted, never)
    first = never.expand(*steps.shape[:2], episodes).clone()
    first.scatter_reduce_(-1, episode, steps, reduce="amin")
    return first.where(first < never, 0).transpose(1, 2)


def _episode_of_step(
    batch: TrajectoryBatch, episodes: int
) -> tuple[Int[Tensor, "task env time"], Bool[Tensor, "task env time"]]:
    """Which episode a step belongs to, and whether it is a valid step of the first ``episodes``."""
    ended = (batch.terminated | batch.truncated).long()
    episode = ended.cumsum(-1) - ended
    return episode.clamp(max=episodes - 1), batch.valid & (episode < episodes)


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
    if iqm:
        value, resampled = interquartile_mean(scores), interquartile_mean(scores[_drawn(len(scores), resamples)])
    else:
        value, resampled = scores.mean(), _counts(len(scores), resamples) @ scores / len(scores)
    tail = 100 * (1 - confidence) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Estimate(float(value), float(low), float(high))


def _drawn(num_tasks: int, resamples: int) -> NDArray[np.int64]:
    """Which tasks each resample holds [resample, task]."""
    return np.random.default_rng(0).integers(num_tasks, size=(resamples, num_tasks))


@lru_cache(maxsize=1)
def _counts(num_tasks: int, resamples: int) -> NDArray[np.float64]:
    """How often each resample holds a task [resample, task]: the means of many resamples are one product."""
    return np.stack([np.bincount(row, minlength=num_tasks) for row in _drawn(num_tasks, resamples)]).astype(float)
