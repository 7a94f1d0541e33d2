"""Random numbers that several families draw: noise for initial states, directions for tasks."""

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import drawn


def uniform_like(field: Tensor, generator: torch.Generator) -> Tensor:
    """U(0, 1) in the shape of ``field``, drawn where the generator is."""
    return drawn(torch.rand, field.shape, generator, field.dtype).to(field.device)


def normal_like(field: Tensor, generator: torch.Generator) -> Tensor:
    """N(0, 1) in the shape of ``field``, drawn where the generator is."""
    return drawn(torch.randn, field.shape, generator, field.dtype).to(field.device)


def two_ways(num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
    """-1 or +1 with equal probability."""
    return torch.randint(2, (num_tasks,), generator=generator, device=generator.device) * 2.0 - 1.0


def half_each(num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
    """-1 and +1 equally often in random order; of an odd number, either may be there once more."""
    order = torch.randperm(num_tasks + num_tasks % 2, generator=generator, device=generator.device)
    return (order[:num_tasks] % 2) * 2.0 - 1.0


def all_ways(num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
    """Unit vectors, uniform on the circle (a normalized Gaussian is, too)."""
    angle = 2 * math.pi * torch.rand(num_tasks, generator=generator, device=generator.device)
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def seed_of(*numbers: int) -> int:
    """A 63-bit seed for some whole numbers; other numbers give independent streams."""
    words = [number % 2**64 for number in numbers]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> np.uint64(1))
