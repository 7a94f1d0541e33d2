"""What reference agents share: from scores to the probabilities of choices, and the agent that ignores everything."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.networks.distributions import Categorical
from metarl.types import Previous

NEVER = -1e9
"""Logarithm of the probability of what an agent never does: finite, so that no product with it is NaN."""


def categorical(probability: Float[Tensor, "*batch act"]) -> Categorical:
    """The distribution with these probabilities, zeros allowed."""
    return Categorical(probability.log().clamp(min=NEVER))


def uniform_over_best(score: Float[Tensor, "*batch act"], tolerance: float = 0.0) -> Float[Tensor, "*batch act"]:
    """Equal probabilities for all scores within ``tolerance`` of the largest."""
    best = (score >= score.amax(-1, keepdim=True) - tolerance).float()
    return best / best.sum(-1, keepdim=True)


def explore(probability: Float[Tensor, "*batch act"], epsilon: float) -> Float[Tensor, "*batch act"]:
    """With probability ``epsilon`` any choice, each as likely."""
    return (1 - epsilon) * probability + epsilon / probability.shape[-1]


@dataclass(frozen=True)
class Random:
    """Every choice is as likely, always."""

    def actor(self, state: Any, num_tasks: int) -> None:
        return None

    def act(
        self, actor: None, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env act"], Categorical, None]:
        dist = categorical(uniform_over_best(torch.zeros_like(previous.action)))
        return dist.sample(generator), dist, None
