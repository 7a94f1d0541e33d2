"""Running moments of observations: what a policy sees is then of order 1, whatever its unit.

They are part of a learner's state and change in its update alone, so testing on held-out tasks leaves them as they are.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_STD = 0.01  # in the observation's units: what hardly varies is not blown up to noise
LARGEST = 10.0  # standard deviations


class Moments(NamedTuple):
    """Of all observations so far."""

    total: Float[Tensor, ""]
    mean: Float[Tensor, " obs"]
    variance: Float[Tensor, " obs"]

    @staticmethod
    def none(obs_dim: int, device: torch.device) -> "Moments":
        """Before any observation; normalizing by them changes nothing but outliers."""
        zeros = torch.zeros(obs_dim, device=device)
        return Moments(torch.zeros((), device=device), zeros, torch.ones_like(zeros))

    def including(self, obs: Float[Tensor, "*batch obs"], valid: Bool[Tensor, "*batch"]) -> "Moments":
        """The moments of what was seen before and of the valid rows of ``obs`` (Chan et al. 1979)."""
        rows = obs[valid]
        if len(rows) == 0:
            return self
        total = self.total + len(rows)
        mean, variance = rows.mean(0), rows.var(0, correction=0)
        weight = len(rows) / total
        delta = mean - self.mean
        between = delta.square() * weight * (1 - weight)
        return Moments(total, self.mean + weight * delta, (1 - weight) * self.variance + weight * variance + between)

    def normalize(self, obs: Float[Tensor, "*batch obs"]) -> Float[Tensor, "*batch obs"]:
        std = self.variance.sqrt().clamp(min=SMALLEST_STD)
        return ((obs - self.mean) / std).clamp(-LARGEST, LARGEST)
