"""Random numbers that several families draw: noise for initial states, directions and goal velocities for tasks."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from envs.api import require
from envs.mujoco_env import MujocoTask


def uniform_like(field: Tensor, generator: torch.Generator) -> Tensor:
    """U(0, 1) in the shape of ``field``, drawn where the generator is."""
    draw = torch.rand(field.shape, generator=generator, device=generator.device, dtype=field.dtype)
    return draw.to(field.device)


def normal_like(field: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) in the shape of ``field``, drawn where the generator is."""
    draw = torch.randn(field.shape, generator=generator, device=generator.device, dtype=field.dtype)
    return draw.to(field.device)


def two_ways(num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
    """-1 or +1 with equal probability."""
    return torch.randint(2, (num_tasks,), generator=generator, device=generator.device) * 2.0 - 1.0


def all_ways(num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
    """Unit vectors, uniform on the circle (a normalized Gaussian is, too)."""
    angle = 2 * math.pi * torch.rand(num_tasks, generator=generator, device=generator.device)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


@dataclass(frozen=True)
class GoalVelocity(MujocoTask):
    """To be inherited after the body's class. Task parameter: a goal velocity [m/s]."""

    max_velocity: float = 3.0
    """Goal velocities are uniform in [0, max_velocity] [m/s]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "max_velocity", above=0)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        return torch.rand(num_tasks, generator=generator, device=generator.device) * self.max_velocity
