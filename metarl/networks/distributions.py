"""Action distributions as data: NamedTuples of tensors, which ``vmap`` and ``grad`` take as they are."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.api import drawn
from metarl.types import Metrics, Params


@runtime_checkable
class Distribution(Protocol):
    """What a policy answers: a NamedTuple of tensors [*batch act], with these functions of it."""

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch act"]:
        """An action, drawn by :func:`metarl.envs.api.drawn`; one-hot where it is a choice."""

    def mode(self) -> Float[Tensor, "*batch act"]:
        """The most likely action."""

    def log_prob(self, action: Float[Tensor, "*batch act"]) -> Float[Tensor, "*batch"]: ...

    def entropy(self) -> Float[Tensor, "*#batch"]: ...

    def kl(self, other: Any) -> Float[Tensor, "*batch"]:
        """KL(self || other), of its own kind."""


class DiagGaussian(NamedTuple):
    """Independent normals; log-probability, entropy and KL are *sums* over the action dimensions."""

    mean: Float[Tensor, "*batch act"]
    log_std: Float[Tensor, "*#batch act"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch act"]:
        noise = drawn(torch.randn, self.mean.shape, generator, self.mean.dtype)
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


class Categorical(NamedTuple):
    """One of ``act`` choices; an action is its one-hot vector."""

    log_probs: Float[Tensor, "*batch act"]
    """Normalized, as :meth:`from_logits` makes them."""

    @classmethod
    def from_logits(cls, logits: Float[Tensor, "*batch act"]) -> "Categorical":
        return cls(logits.log_softmax(-1))

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch act"]:
        """By the Gumbel-max trick, in one pass over the logits."""
        uniform = drawn(torch.rand, self.log_probs.shape, generator)
        gumbel = -(-uniform.clamp(min=1e-20).log()).log()
        return one_hot(self.log_probs + gumbel)

    def mode(self) -> Float[Tensor, "*batch act"]:
        return one_hot(self.log_probs)

    def log_prob(self, action: Float[Tensor, "*batch act"]) -> Float[Tensor, "*batch"]:
        return (self.log_probs * action).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def kl(self, other: "Categorical") -> Float[Tensor, "*batch"]:
        """KL(self || other)."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)


def one_hot(score: Float[Tensor, "*batch act"]) -> Float[Tensor, "*batch act"]:
    """1 at the largest score (the first of equal ones), else 0."""
    return torch.zeros_like(score).scatter_(-1, score.argmax(-1, keepdim=True), 1.0)


def std_metrics(params: Params, min_std: float) -> Metrics:
    """The standard deviation that a Gaussian policy acts with, on average over action dimensions; none of another."""
    if "log_std" not in params:
        return {}
    return {"train/policy_std": params["log_std"].exp().clamp(min=min_std).mean().item()}
