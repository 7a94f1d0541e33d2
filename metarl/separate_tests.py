"""Test episodes that adaptation sees nothing of: another number of them, or greedy ones after sampled experience."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import TaskEnv
from metarl.rollout import Act, after, rollout
from metarl.types import Actor, Agent, MetaLearner, Previous, TrajectoryBatch


class Adapting(NamedTuple):
    """What acts after some adaptation."""

    actor: Actor
    before: Previous | None = None
    """In the middle of a trial, the step before."""
    usable: Bool[Tensor, "task env"] | None = None
    """In the middle of a trial, where the actor remembers no episode that diverged."""


def separate_tests(
    agent: Agent, stages: Iterator[Adapting], env: TaskEnv, generator: torch.Generator, *, greedy: bool
) -> Iterator[TrajectoryBatch]:
    """An episode of every world of ``env`` at each stage."""
    act = greedily(agent.act) if greedy else agent.act
    for actor, before, usable in stages:
        batch, _ = rollout(env, act if before is None else _continuing(act, before), actor, 1, generator)
        yield batch if usable is None else batch._replace(valid=batch.valid & usable.unsqueeze(-1))


def inner_steps(
    learner: MetaLearner,
    state: Any,
    env: TaskEnv,
    task: Float[Tensor, "task ..."],
    scales: Sequence[float],
    generator: torch.Generator,
    *,
    min_steps: int = 0,
) -> Iterator[Adapting]:
    """What acts before any inner step and after each, taken on sampled episodes, one in every world of ``env``."""
    env.set_tasks(task)
    actor = learner.actor(state, env.num_tasks)
    yield Adapting(actor)
    for scale in scales:
        batch, actor = rollout(env, learner.act, actor, 1, generator, min_steps=min_steps)
        actor = learner.adapt(state, actor, learner.credit(state, batch), scale=scale)
        yield Adapting(actor)


def trial_episodes(
    agent: Agent, state: Any, env: TaskEnv, task: Float[Tensor, "task ..."], episodes: int, generator: torch.Generator
) -> Iterator[Adapting]:
    """What an agent remembers as each of ``episodes`` begins, all before it sampled; the last one is not played.

    For tasks whose episodes last to the horizon, so that all worlds begin theirs in the same step. Acting leaves the
    memory that it is given as it was, so each stage is a copy.
    """
    env.set_tasks(task)
    begun: list[Actor] = []
    clock, horizon = 0, env.spec.horizon

    def act(actor: Actor, obs: Tensor, previous: Previous, generator: torch.Generator) -> tuple[Tensor, Any, Actor]:
        nonlocal clock
        if clock % horizon == 0:
            begun.append(actor)
        clock += 1
        return agent.act(actor, obs, previous, generator)

    actor = agent.actor(state, env.num_tasks)
    if episodes == 1:
        yield Adapting(actor)
        return
    batch, actor = rollout(env, act, actor, episodes - 1, generator, trials=True)
    usable = batch.valid.any(-1)
    before = [after(batch, end - 1) for end in range(horizon, clock + 1, horizon)]
    del batch  # the tests need memory, too
    yield Adapting(begun[0])
    yield from (Adapting(*stage, usable) for stage in zip([*begun[1:], actor], before, strict=True))


def greedily(act: Act) -> Act:
    """The same policy, always taking its most likely action (of a Gaussian: the mean)."""

    def most_likely(*arguments: Any) -> tuple[Tensor, Any, Any]:
        _, dist, actor = act(*arguments)
        return dist.mode(), dist, actor

    return most_likely


def _continuing(act: Act, before: Previous) -> Act:
    """The same policy in the middle of a trial: its first step comes after ``before``."""
    waiting = [before]

    def acting(actor: Actor, obs: Tensor, previous: Previous, generator: torch.Generator) -> tuple[Tensor, Any, Actor]:
        return act(actor, obs, waiting.pop() if waiting else previous, generator)

    return acting
