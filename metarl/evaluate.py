"""Meta-testing: what a policy earns on held-out tasks while it adapts.

Adaptation goes by steps: 0, 1, 2 ... inner steps of a gradient learner, or the episodes of a trial of an agent that
remembers. Every (task, step) gets the same fixed number of episodes, and every episode counts. Success is success at
any step of an episode. Tasks come from a seed of their own, which no training run draws from.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import TaskEnv
from metarl.envs.registry import TaskDistribution
from metarl.metrics import by_episode, solved_after
from metarl.rollout import Act, rollout
from metarl.seeds import stream
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
    returns, solved = [], []
    for batch in adaptation(agent, state, env, task, act, scales, episodes, generator, min_steps=min_steps):
        returns.append(by_episode(batch, batch.reward, episodes))
        solved.append(solved_after(batch, episodes))
    return MetaTest(torch.cat(returns, dim=1), torch.cat(solved, dim=1))


def adaptation(
    agent: Agent,
    state: Any,
    env: TaskEnv,
    task: Float[Tensor, "task ..."],
    act: Act,
    scales: Sequence[float],
    episodes: int,
    generator: torch.Generator,
    *,
    min_steps: int = 0,
) -> Iterator[TrajectoryBatch]:
    """What :func:`meta_test` plays: the batch before any inner step and the one after each."""
    env.set_tasks(task)
    actor = agent.actor(state, env.num_tasks)
    for step in range(len(scales) + 1):
        batch, actor = rollout(env, act, actor, episodes, generator, min_steps=min_steps)
        yield batch
        if step < len(scales):
            learner = cast(MetaLearner, agent)  # only learners with inner steps are given scales
            actor = learner.adapt(state, actor, learner.credit(state, batch), scale=scales[step])


def greedily(act: Act) -> Act:
    """The same policy, always taking its most likely action (of a Gaussian: the mean)."""

    def most_likely(*arguments: Any) -> tuple[Tensor, Any, Any]:
        _, dist, actor = act(*arguments)
        return dist.mode(), dist, actor

    return most_likely
