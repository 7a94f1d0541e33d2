"""Environments of Gymnasium as tasks, complete in this file: a pole of unknown length, a pendulum of unknown gravity.

Three functions say what the tasks are: how an environment is built, which tasks there are, how one is set. Any
environment that Gymnasium's API describes will do; :mod:`metarl.envs.gymnasium_tasks` says what is made of it.

    metarl train cartpole_length --code experiments/own_environment.py --name pole
    metarl train pendulum_gravity --code experiments/own_environment.py --name pendulum
    metarl evaluate runs/pole --code experiments/own_environment.py
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl import MAML, RL2, Experiment, GaussianMLP, RecurrentPolicy, presets
from metarl.envs import GymTasks


@dataclass(frozen=True)
class CartPoleLength(GymTasks):
    """Task parameter: half the length of the pole [m], uniform in [0.25, 2]; no observation shows it."""

    name = "cartpole_length"

    horizon: int = 100
    """Steps of an episode, of 0.02 s each."""

    def env(self) -> gymnasium.Env[Any, Any]:
        return gymnasium.make("CartPole-v1").unwrapped

    def set_task(self, env: Any, task: NDArray[np.float32]) -> None:
        env.length = float(task)
        env.polemass_length = env.masspole * env.length

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return 0.25 + 1.75 * torch.rand(num_tasks, generator=generator)


@dataclass(frozen=True)
class PendulumGravity(GymTasks):
    """Task parameter: gravity [m/s²], uniform in [2, 18]; no observation shows it."""

    name = "pendulum_gravity"
    terminates = False

    horizon: int = 100
    """Steps of an episode, of 0.05 s each."""

    def env(self) -> gymnasium.Env[Any, Any]:
        return gymnasium.make("Pendulum-v1").unwrapped

    def set_task(self, env: Any, task: NDArray[np.float32]) -> None:
        env.g = float(task)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return 2 + 16 * torch.rand(num_tasks, generator=generator)


CartPoleLength.presets = {"default": CartPoleLength()}
PendulumGravity.presets = {"default": PendulumGravity()}
POLE = RL2(policy=RecurrentPolicy(memory="gru", memory_size=64), gae_lambda=0.95, learning_rate=1e-3)
PENDULUM = MAML(policy=GaussianMLP((64, 64)), inner_lr=0.1)
presets.add({"default": Experiment(CartPoleLength(), POLE, num_tasks=20, num_envs=1, episodes=3, iterations=50)})
presets.add({"default": Experiment(PendulumGravity(), PENDULUM, num_tasks=10, num_envs=10, episodes=10, iterations=50)})
