"""Meta-testing: what a policy earns on held-out tasks while it adapts.

Adaptation goes by steps: 0, 1, 2 ... inner steps of a gradient learner, or the episodes of a trial of an agent that
remembers. Every (task, step) gets the same fixed number of episodes, and every episode counts. The headline of a task
that defines success is success at the last step of greedy episodes: at *any* step of sampled ones, noise has it, too.
Tasks come from a seed of their own, which no training run draws from.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from metarl.envs.api import TaskEnv
from metarl.envs.registry import TaskDistribution
from metarl.metrics import by_episode, kept, solved_after, solved_at_end
from metarl.rollout import Act, rollout
from metarl.seeds import stream
from metarl.separate_tests import greedily, inner_steps, separate_tests, trial_episodes
from metarl.types import Agent, MetaLearner, TrajectoryBatch

HELD_OUT_SEED = 1_000_003
"""Streams of this seed draw the held-out tasks; runs refuse it."""
VALIDATION_SEED = 1_000_033
"""Streams of this seed draw the validation tasks; runs refuse it, too."""


class MetaTest(NamedTuple):
    """What one policy earned."""

    returns: Float[Tensor, "task step episode"]
    """Undiscounted; NaN of an episode that diverged, or that an agent would have remembered one in."""
    solved_after: Int[Tensor, "task step episode"]
    """Steps until the first success of the episode; 0 where there was none, -1 where the return is NaN."""
    solved_at_end: Bool[Tensor, "task step episode"]
    """Success at the last step of the episode."""
    solved_share: Float[Tensor, "task step episode"]
    """Share of the last 50 steps with success."""

    @property
    def successes(self) -> Bool[Tensor, "task step episode"]:
        """Success at any step of the episode."""
        return self.solved_after > 0

    def known(self, measure: Shaped[Tensor, "task step episode"]) -> Float[Tensor, "task step episode"]:
        """A measure of episodes as numbers to average: NaN where the return is."""
        return measure.double().where(~self.returns.isnan(), torch.nan)

    @property
    def solved(self) -> Float[Tensor, "task step episode"]:
        """The same as a number to average: 1, 0, or NaN where the return is."""
        return self.known(self.successes)


def held_out_tasks(tasks: TaskDistribution, num_tasks: int) -> Float[Tensor, "task ..."]:
    """The tasks a paper evaluated on where they are known, else ``num_tasks`` draws of the held-out seed."""
    published = tasks.published_tasks(num_tasks)
    return tasks.sample(num_tasks, stream(HELD_OUT_SEED, "tasks")) if published is None else published


def validation_tasks(tasks: TaskDistribution, num_tasks: int) -> Float[Tensor, "task ..."]:
    """Tasks to choose a checkpoint by: those the distribution keeps for it, else draws of the validation seed.

    Of a distribution of finitely many tasks, such as two directions, those are the same tasks as training's.

    Raises:
        BadField: there are not so many.
    """
    kept = tasks.validation_tasks(num_tasks)
    return tasks.sample(num_tasks, stream(VALIDATION_SEED, "tasks")) if kept is None else kept


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
    tests: TaskEnv | None = None,
) -> MetaTest:
    """Adapts to each task as training does: one inner step for each of ``scales``, or over the episodes of a trial.

    Args:
        scales: the step size of each inner step, as a multiple of the learner's; none for an agent that remembers.
        episodes: episodes that a world plays before and after each inner step, remembering from one to the next.
        greedy: take the most likely action, or the mean, in place of a sample; with ``tests`` there alone.
        seed: of the action noise; the environment's noise is its own.
        min_steps: steps of experience that an inner step shall see at least; where episodes end early, worlds play
            further ones, which adaptation sees and the returns do not.
        tests: worlds that play the episodes that count, one each at every step of adaptation, of which adaptation sees
            nothing: it is always to sampled actions in ``env``. None: what adaptation sees is what counts.

    Returns:
        A step for each episode before any inner step and after each; an episode for each world.
    """
    generator = stream(seed, "meta-test actions", device=str(env.device))
    if tests is None:
        act = greedily(agent.act) if greedy else agent.act
        played = adaptation(agent, state, env, task, act, scales, episodes, generator, min_steps=min_steps)
        per_world = episodes
    else:
        tests.set_tasks(task)
        if scales:
            stages = inner_steps(cast(MetaLearner, agent), state, env, task, scales, generator, min_steps=min_steps)
        else:
            stages = trial_episodes(agent, state, env, task, episodes, generator)
        draws = stream(seed, "separate test actions", device=str(env.device))
        played, per_world = separate_tests(agent, stages, tests, draws, greedy=greedy), 1
    found = [measure(batch, per_world, env.spec.horizon) for batch in played]  # a batch at a time: they are large
    return MetaTest(*(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)))


def measure(batch: TrajectoryBatch, episodes: int, horizon: int) -> MetaTest:
    usable = kept(batch, episodes)
    returns = by_episode(batch, batch.reward, episodes).where(usable, torch.nan)
    after = solved_after(batch, episodes).where(usable, -1)
    return MetaTest(returns, after, *solved_at_end(batch, episodes, horizon=horizon))


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
        batch, actor = rollout(env, act, actor, episodes, generator, min_steps=min_steps, trials=not scales)
        yield batch
        if step < len(scales):
            learner = cast(MetaLearner, agent)  # only learners with inner steps are given scales
            actor = learner.adapt(state, actor, learner.credit(state, batch), scale=scales[step])
