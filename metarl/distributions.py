"""Action distributions as data: NamedTuples of tensors, which ``vmap`` and ``grad`` take as they are."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class DiagGaussian(NamedTuple):
    """Independent normals; log-probability, entropy and KL are *sums* over the action dimensions."""

    mean: Float[Tensor, "*batch act"]
    log_std: Float[Tensor, "*#batch act"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch act"]:
        noise = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + self.log_std.exp() * noise

    def mode(self) -> Float[Tensor, "*batch act"]:
        return self.mean

    def log_prob(self, action: Float[Tensor, "*batch act"]) -> Float[Tensor, "*batch"]:
        standardized = (action - self.mean) * (-self.log_std).exp()
        normalizer = self.log_std.sum(-1) + 0.5 * math.log(2 * math.pi) * self.mean.shape[-1]
        return -0.5 * standardized.square().sum(-1) - normalizer

    def entropy(self) -> Float[Tensor, "*#batch"]:
        return (self.log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def kl(self, other: "DiagGaussian") -> Float[Tensor, "*batch"]:
        """KL(self || other)."""
        ratio = (2 * (self.log_std - other.log_std)).exp()  # of the variances
        distance = ((self.mean - other.mean) * (-other.log_std).exp()).square()
        return 0.5 * (ratio + distance - 1).sum(-1) + (other.log_std - self.log_std).sum(-1)
