"""Trials of reference agents that their tests share."""

import math

import torch
from torch import Tensor

from metarl.envs.registry import TaskDistribution
from metarl.evaluate import meta_test
from metarl.types import Agent, Previous

WORLDS = 20_000  # of simulations; 4.5 standard errors are missed once in 150,000 runs


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def nothing_before(worlds: int, actions: int) -> Previous:
    zeros = torch.zeros(1, worlds)
    return Previous(torch.zeros(1, worlds, actions), zeros, zeros.bool(), zeros.bool(), zeros[..., None])


def step(worlds: int, actions: int, action: int, reward: float, *, ended: bool = False) -> Previous:
    """The same in every world."""
    chosen = torch.zeros(1, worlds, actions)
    chosen[..., action] = 1.0
    full = torch.full((1, worlds), reward)
    never = torch.zeros(1, worlds, dtype=torch.bool)
    return Previous(chosen, full, never, torch.full((1, worlds), ended), torch.zeros(1, worlds, 1))


def assert_mean(samples: Tensor, exact: float, what: str = "") -> None:
    error = samples.std().item() / math.sqrt(len(samples))
    assert abs(samples.mean().item() - exact) < 4.5 * error, f"{what}: {samples.mean()} is not {exact} +- {error}"


def trials(agent: Agent, task: TaskDistribution, episodes: int, tasks: Tensor, num_envs: int = 1) -> Tensor:
    """Total return of a trial, by task."""
    env = task.make(len(tasks), num_envs, seed=3)
    return meta_test(agent, None, env, tasks, episodes=episodes, seed=4).returns.sum(1).mean(-1)
