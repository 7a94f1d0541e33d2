"""States, plays and batches of RL² that its tests share."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl.algorithms.rl2 import RL2, RL2State
from metarl.envs.api import EnvSpec
from metarl.envs.registry import TaskDistribution
from metarl.networks.distributions import Categorical
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.rollout import rollout
from metarl.types import Params, TrajectoryBatch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(learner: RL2, spec: EnvSpec, *, seed: int = 0, size: float = 0.5) -> RL2State:
    """A state that training may have left: no weight is zero, actions have preferences, returns a scale at each of
    the 20 steps that trials had so far.
    """
    generator = seeded(seed)
    state = learner.init(spec, generator)
    meta = {name: x + size * torch.randn(x.shape, generator=generator) for name, x in state.meta.items()}
    return state._replace(meta=meta, return_scale=0.5 + torch.rand(20, 2, generator=generator), num_updates=3)


def play(
    learner: RL2,
    tasks: TaskDistribution,
    state: RL2State,
    *,
    num_tasks: int = 3,
    num_envs: int = 2,
    episodes: int = 3,
    seed: int = 0,
    task: Tensor | None = None,
) -> TrajectoryBatch:
    """One trial in every world."""
    env = tasks.make(num_tasks, num_envs, seed=seed)
    env.set_tasks(tasks.sample(num_tasks, seeded(seed)) if task is None else task)
    batch, _ = rollout(env, learner.act, learner.actor(state, num_tasks), episodes, seeded(seed + 1))
    return batch


def equal(x: Any, y: Any) -> bool:
    """The same tensors to the last bit, and the same everything else."""
    left, right = tree_leaves(x), tree_leaves(y)
    return len(left) == len(right) and all(
        torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(left, right, strict=True)
    )


@dataclass(frozen=True)
class SpyPolicy(RecurrentPolicy):
    """Writes down what it is given."""

    inputs_seen: list[Tensor] = field(default_factory=list)
    memories_seen: list[Any] = field(default_factory=list)

    def __call__(self, params: Params, inputs: Tensor, memory: Any) -> ActorCritic:
        self.inputs_seen.append(inputs.detach().clone())
        self.memories_seen.append(memory)
        return super().__call__(params, inputs, memory)


VALUED = RecurrentPolicy("none", memory_size=1)


def valued(learner: RL2, *, mean: float = 0.0, std: float = 1.0, num_updates: int = 1) -> RL2State:
    """tanh of the observation is the value in deviations ``std`` from ``mean``; both actions are equally likely."""
    meta = {
        "memory.weight": torch.ones(1, 1),
        "memory.bias": torch.zeros(1),
        "policy.weight": torch.zeros(2, 1),
        "policy.bias": torch.zeros(2),
        "value.weight": torch.ones(1, 1),
        "value.bias": torch.zeros(1),
    }
    return RL2State(meta, {}, torch.tensor([mean, std]).repeat(8, 1), num_updates, {})


def trials(
    reward: list[list[list[float]]],
    *,
    value: list[list[list[float]]] | None = None,
    valid: list[list[list[int]]] | None = None,
    horizon: int = 2,
) -> TrajectoryBatch:
    """[task env time] of one-dimensional observations, whose tanh is ``value``, and two actions."""
    paid = torch.tensor(reward)
    shape = paid.shape
    obs = torch.zeros(shape) if value is None else torch.tensor(value).atanh()
    clock = (torch.arange(shape[-1]) % horizon).expand(shape)
    action = torch.tensor([1.0, 0.0]).expand(*shape, 2)
    dist = Categorical.from_logits(torch.zeros(*shape, 2))
    never = torch.zeros(shape, dtype=torch.bool)
    return TrajectoryBatch(
        obs=obs.unsqueeze(-1),
        action=action,
        reward=paid,
        terminated=never,
        truncated=clock == horizon - 1,
        clock=clock,
        success=never,
        valid=torch.ones(shape, dtype=torch.bool) if valid is None else torch.tensor(valid).bool(),
        log_prob=dist.log_prob(action),
        dist=dist,
        next_obs=obs.unsqueeze(-1),
        advantage=torch.zeros(shape),
        target=torch.zeros(shape),
    )


def judged(ratio: list[list[float]], advantage: list[list[float]], target: list[list[float]]) -> TrajectoryBatch:
    """Trials [env time] whose steps have these likelihood ratios under :func:`valued`, where each action has log .5."""
    batch = trials([[[0.0] * len(steps) for steps in ratio]])
    return batch._replace(
        log_prob=math.log(0.5) - torch.tensor([ratio]).log(),
        advantage=torch.tensor([advantage]),
        target=torch.tensor([target]),
    )
