"""Gymnasium's cart-pole with a pole of unknown length, and its pendulum under unknown gravity.

Observations, actions, rewards and initial states are those of Gymnasium's CartPole-v1 and Pendulum-v1 (actions of the
pendulum in [-1, 1] for [-2, 2] N m); worlds are stepped in Python, one after the other. Masses that differ instead, on
MuJoCo: :mod:`metarl.envs.small.cartpole_mass`, :mod:`metarl.envs.small.pendulum_mass`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.gymnasium_tasks import Env, GymTasks
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class CartPoleLength(GymTasks):
    """Task parameter: half the length of the pole [m], uniform in [min_length, max_length]; no observation shows it.

    Gymnasium's own is 0.5. Preset: gymnasium.
    """

    name: ClassVar[str] = "cartpole_length"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    horizon: int = 200
    """Steps of an episode, of 0.02 s each."""
    min_length: float = 0.25
    """Half the length of the shortest pole [m]."""
    max_length: float = 2.0
    """Half the length of the longest pole [m]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.min_length <= self.max_length:
            raise BadField(f"min_length is {self.min_length}, max_length {self.max_length}: use 0 < min <= max")

    def env(self) -> Env:
        return gymnasium.make("CartPole-v1", render_mode="rgb_array").unwrapped

    def set_task(self, env: Any, task: NDArray[Any]) -> None:
        env.length = float(task)
        env.polemass_length = env.masspole * env.length

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        return between(self.min_length, self.max_length, num_tasks, generator)

    def in_words(self, task: Float[Tensor, ""]) -> str:
        return f"balance a pole of {2 * float(task):.2f} m"


@dataclass(frozen=True)
class PendulumGravity(GymTasks):
    """Task parameter: gravity [m/s²], uniform in [min_gravity, max_gravity]; no observation shows it.

    Gymnasium's own is 10. Preset: gymnasium.
    """

    name: ClassVar[str] = "pendulum_gravity"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    terminates = False

    horizon: int = 200
    """Steps of an episode, of 0.05 s each."""
    min_gravity: float = 2.0
    """The smallest gravity [m/s²]."""
    max_gravity: float = 18.0
    """The largest gravity [m/s²]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_gravity <= self.max_gravity:
            raise BadField(f"min_gravity is {self.min_gravity}, max_gravity {self.max_gravity}: use 0 <= min <= max")

    def env(self) -> Env:
        return gymnasium.make("Pendulum-v1", render_mode="rgb_array").unwrapped

    def set_task(self, env: Any, task: NDArray[Any]) -> None:
        env.g = float(task)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        return between(self.min_gravity, self.max_gravity, num_tasks, generator)

    def in_words(self, task: Float[Tensor, ""]) -> str:
        return f"swing up under {float(task):.1f} m/s²"


def between(low: float | int, high: float | int, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
    return low + (high - low) * torch.rand(num_tasks, generator=generator, device=generator.device)


CartPoleLength.presets = {"gymnasium": CartPoleLength()}
PendulumGravity.presets = {"gymnasium": PendulumGravity()}
