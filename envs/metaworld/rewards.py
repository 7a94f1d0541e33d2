"""Reward primitives of Meta-World (Yu et al. 2020; ``metaworld/utils/reward_utils.py``, after dm_control), over worlds.

Every function takes and returns tensors ``[world]``, lengths in m.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

Worlds = Float[Tensor, " world"]
Points = Float[Tensor, "world 3"]

VALUE_AT_MARGIN = 0.1


def norm(x: Float[Tensor, "world n"]) -> Worlds:
    """Euclidean length of each world's vector."""
    return x.square().sum(-1).sqrt()


def distance(a: Points, b: Points) -> Worlds:
    """Distance between two points of each world [m]."""
    return norm(a - b)


def long_tail(x: Worlds, upper: float, margin: Worlds | float, *, lower: float = 0.0) -> Worlds:
    """1 where ``lower <= x <= upper``, else falling like 1 / (1 + 9 d^2), d = distance to that range over ``margin``.

    A margin of 0 makes it a step.
    """
    excess = torch.where(x < lower, lower - x, x - upper)
    outside = 1.0 / ((excess / margin).square() * (1.0 / VALUE_AT_MARGIN - 1.0) + 1.0)
    return torch.where((lower <= x) & (x <= upper), 1.0, outside)


def gaussian(x: Worlds, upper: float, margin: Worlds | float, *, lower: float = 0.0) -> Worlds:
    """As :func:`long_tail`, falling like a Gaussian that is 0.1 at ``margin``."""
    excess = torch.where(x < lower, lower - x, x - upper)
    outside = torch.exp(math.log(VALUE_AT_MARGIN) * (excess / margin).square())
    return torch.where((lower <= x) & (x <= upper), 1.0, outside)


def hamacher_product(a: Worlds, b: Worlds) -> Worlds:
    """a b / (a + b - a b), a t-norm on [0, 1]; 0 where both are 0."""
    product = a * b
    denominator = a + b - product
    return torch.where(denominator > 0, product / denominator, 0.0)


def rectangular_prism(x: Points, zero: Points, one: Points) -> Worlds:
    """Inside the box spanned by ``zero`` and ``one``, the volume fraction from corner ``zero`` to ``x``; outside, 1."""
    fraction = (x - zero) / (one - zero)
    inside = ((fraction >= 0) & (fraction <= 1)).all(-1)
    return torch.where(inside, fraction.prod(-1), 1.0)


def peaked(progress: Worlds, remaining: Worlds) -> Worlds:
    """The goal term of version-1 rewards: 1000 (progress + exp(-r^2 / 0.01) + exp(-r^2 / 0.001)), at least 0."""
    square = remaining.square()
    return (1000 * (progress + torch.exp(-square / 0.01) + torch.exp(-square / 0.001))).clamp(min=0.0)
