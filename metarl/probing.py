"""What a learner holds of each task while it adapts: memory by step of a trial, or adapted parameters by inner step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.envs.api import TaskEnv
from metarl.envs.fields import BadField
from metarl.fewshot import FewShotTasks
from metarl.rollout import rollout
from metarl.separate_tests import inner_steps
from metarl.types import Actor, Agent, MetaLearner, Previous


class Knowledge(NamedTuple):
    """What one learner holds at one time."""

    when: int
    """Steps of the trial before the present one, or inner steps."""
    features: Float[Tensor, "task feature"]
    known: Bool[Tensor, " task"]
    """False where the trial is over, or met an episode that diverged."""


def of_memory(
    agent: Agent,
    state: Any,
    env: TaskEnv,
    task: Float[Tensor, "task ..."],
    episodes: int,
    generator: torch.Generator,
    *,
    points: int,
) -> list[Knowledge]:
    """Memory at ``points`` steps of one trial of each task, evenly spaced, after it has seen the step's observation.

    Memory is what :meth:`metarl.types.Agent.act` puts in the actor's place of what it was given: tensors [task ...].

    Args:
        env: one world of each task.
    """
    env.set_tasks(task)
    num_steps = episodes * env.spec.horizon
    chosen = set(np.linspace(0, num_steps - 1, min(points, num_steps)).round().astype(int).tolist())
    found: dict[int, Tensor] = {}
    clock = 0

    def act(actor: Actor, obs: Tensor, previous: Previous, draws: torch.Generator) -> tuple[Tensor, Any, Actor]:
        nonlocal clock
        action, dist, after = agent.act(actor, obs, previous, draws)
        if clock in chosen:
            given = {id(leaf) for leaf in tree_leaves(actor)}
            found[clock] = _flat([leaf for leaf in tree_leaves(after) if id(leaf) not in given], env.num_tasks)
        clock += 1
        return action, dist, after

    batch, _ = rollout(env, act, agent.actor(state, env.num_tasks), episodes, generator, trials=True)
    if not all(features.numel() for features in found.values()):
        raise BadField(f"learner is {type(agent).__name__}: it remembers nothing to probe, give it a memory")
    return [Knowledge(when, features, batch.valid[:, 0, when].cpu()) for when, features in sorted(found.items())]


def of_inner_steps(
    learner: MetaLearner,
    state: Any,
    env: TaskEnv,
    task: Float[Tensor, "task ..."],
    scales: Sequence[float],
    generator: torch.Generator,
) -> list[Knowledge]:
    """phi - theta before any inner step and after each, or what else adapts (CAVIA's context, a posterior)."""
    actors = [stage.actor for stage in inner_steps(learner, state, env, task, scales, generator)]
    return _changes([tree_leaves(actor) for actor in actors], env.num_tasks)


def of_examples(
    learner: Any,
    state: Any,
    tasks: FewShotTasks,
    task: Float[Tensor, "task ..."],
    steps: int,
    generator: torch.Generator,
) -> list[Knowledge]:
    """phi - theta of a few-shot learner, before any inner step on the support set and after each."""
    if not hasattr(learner, "steps"):
        raise BadField(f"learner is {learner.called}: it has no adapted parameters to probe, use one with inner steps")
    if tasks.spec.discrete:
        raise BadField(f"task is {tasks.name!r}: its classes are numbered anew in every episode, probe a regression")
    with torch.no_grad():
        theta, rates = learner.split(state.meta)
        episodes = tasks.draw(task, generator)
        phis = learner.steps(theta, rates, episodes.support, [1.0] * steps, episodes.spec)
        return _changes([list(phi.values()) for phi in phis], len(task))


def _changes(stages: Sequence[Sequence[Any]], num_tasks: int) -> list[Knowledge]:
    """What differs from the first stage; stages that are not finite are not known."""
    found = []
    for when, leaves in enumerate(stages):
        pairs = zip(leaves, stages[0], strict=True)
        features = _flat([own - first for own, first in pairs if isinstance(own, Tensor)], num_tasks)
        found.append(Knowledge(when, features, features.isfinite().all(1)))
    return found


def _flat(leaves: Sequence[Any], num_tasks: int) -> Float[Tensor, "task feature"]:
    """The floating-point leaves that have a row for each task, side by side."""
    rows = [
        leaf.detach().reshape(num_tasks, -1).double().cpu()
        for leaf in leaves
        if isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.shape[:1] == (num_tasks,)
    ]
    return torch.cat(rows, dim=1) if rows else torch.zeros(num_tasks, 0, dtype=torch.float64)
