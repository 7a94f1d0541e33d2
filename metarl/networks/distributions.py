"""Action distributions as data: NamedTuples of tensors, which ``vmap`` and ``grad`` take as they are."""

import math
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

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


def of_each(dist: Distribution, obs: Float[Tensor, "*batch obs"]) -> Any:
    """A distribution with leaves [*batch act], those that all observations share repeated."""
    return tree_map(lambda x: x.expand(*obs.shape[:-1], x.shape[-1]), dist)


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


class TanhGaussian(NamedTuple):
    """tanh of independent normals, in (-1, 1); log-probability, entropy and KL are sums over the action dimensions.

    An action says what the normals drew up to rounding alone: within 1e-6 of -1 or 1 its log-probability is that of
    1e-6 away. :meth:`sample_with_log_prob` knows the draw.
    """

    mean: Float[Tensor, "*batch act"]
    """Of the normals."""
    log_std: Float[Tensor, "*#batch act"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch act"]:
        return self.base.sample(generator).tanh()

    def sample_with_log_prob(
        self, noise: Float[Tensor, "*batch act"]
    ) -> tuple[Float[Tensor, "*batch act"], Float[Tensor, "*batch"]]:
        """The action of standard normal ``noise``, and its log-probability; differentiable in mean and deviation."""
        drawn = self.mean + self.log_std.exp() * noise
        of_noise = -0.5 * noise.square() - self.log_std - 0.5 * math.log(2 * math.pi)
        return drawn.tanh(), (of_noise - log_slope(drawn)).sum(-1)

    def mode(self) -> Float[Tensor, "*batch act"]:
        """tanh of the mean: the median, as greedy actions of such policies are."""
        return self.mean.tanh()

    def log_prob(self, action: Float[Tensor, "*batch act"]) -> Float[Tensor, "*batch"]:
        drawn = action.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
        return self.base.log_prob(drawn) - log_slope(drawn).sum(-1)

    def entropy(self) -> Float[Tensor, "*batch"]:
        """That of the normals plus E log (1 - tanh²), by Gauss-Hermite quadrature."""
        nodes, weights = (torch.from_numpy(x).to(self.mean) for x in np.polynomial.hermite_e.hermegauss(32))
        drawn = self.mean.unsqueeze(-1) + self.log_std.exp().unsqueeze(-1) * nodes
        return self.base.entropy() + (log_slope(drawn) @ weights / weights.sum()).sum(-1)

    def kl(self, other: "TanhGaussian") -> Float[Tensor, "*batch"]:
        """KL(self || other): that of the normals, for both go through the same bijection."""
        return self.base.kl(other.base)

    @property
    def base(self) -> DiagGaussian:
        """The normals."""
        return DiagGaussian(self.mean, self.log_std)


def log_slope(drawn: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """log (1 - tanh² x), without cancellation."""
    return 2 * (math.log(2) - drawn - torch.nn.functional.softplus(-2 * drawn))


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
