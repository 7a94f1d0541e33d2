"""Reward primitives of Meta-World (Yu et al. 2020; ``metaworld/utils/reward_utils.py``, after dm_control), over worlds.

Every function takes and returns tensors ``[world]``, lengths in m.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.physics import constant

Scalars = Float[Tensor, " world"]
Flags = Bool[Tensor, " world"]
Points = Float[Tensor, "world 3"]

VALUE_AT_MARGIN = 0.1


def norm(x: Float[Tensor, "world n"]) -> Scalars:
    """Euclidean length of each world's vector."""
    return torch.linalg.vector_norm(x, dim=-1)


def distance(a: Points, b: Points) -> Scalars:
    """Distance between two points of each world [m]."""
    return norm(a - b)


def long_tail(
    x: Float[Tensor, "world ..."], upper: float, margin: Float[Tensor, "world ..."] | float, *, lower: float = 0.0
) -> Float[Tensor, "world ..."]:
    """1 where ``lower <= x <= upper``, else falling like 1 / (1 + 9 d^2), d = distance to that range over ``margin``.

    A margin of 0 makes it a step.
    """
    return 1.0 / (_excess(x, lower, upper, margin).square() * (1.0 / VALUE_AT_MARGIN - 1.0) + 1.0)


def gaussian(x: Scalars, upper: float, margin: Scalars | float, *, lower: float = 0.0) -> Scalars:
    """As :func:`long_tail`, falling like a Gaussian that is 0.1 at ``margin``."""
    return torch.exp(math.log(VALUE_AT_MARGIN) * _excess(x, lower, upper, margin).square())


def _excess(
    x: Float[Tensor, "world ..."], lower: float, upper: float, margin: Float[Tensor, "world ..."] | float
) -> Float[Tensor, "world ..."]:
    """How far ``x`` is outside its range, in margins; 0 inside."""
    excess = torch.maximum(x - upper, lower - x).clamp(min=0.0)
    smallest = torch.finfo(x.dtype).tiny  # 0 / 0 inside a margin of 0 is 0
    margin = margin.clamp(min=smallest) if isinstance(margin, Tensor) else max(margin, smallest)
    return excess / margin


def hamacher_product(a: Scalars, b: Scalars) -> Scalars:
    """a b / (a + b - a b), a t-norm on [0, 1]; 0 where both are 0."""
    product = a * b
    return product / (a + b - product).clamp(min=torch.finfo(product.dtype).tiny)


def rectangular_prism(x: Points, zero: Points, one: Points) -> Scalars:
    """Inside the box spanned by ``zero`` and ``one``, the volume fraction from corner ``zero`` to ``x``; outside, 1."""
    fraction = (x - zero) / (one - zero)
    inside = ((fraction >= 0) & (fraction <= 1)).all(-1)
    return torch.where(inside, fraction.prod(-1), 1.0)


def funnel(radius: Scalars, neck: Scalars | float, *, slope: float, height: float) -> Scalars:
    """Height to keep at ``radius`` from an axis: 0 within ``neck``, else slope log(radius - neck) + height."""
    return torch.where(radius > neck, slope * torch.log(radius - neck) + height, 0.0)


def peaked(progress: Scalars, remaining: Scalars, *, width: float = 0.01, least: float = 0.0) -> Scalars:
    """The goal term of version-1 rewards: 1000 (progress + exp(-r^2 / w) + exp(-10 r^2 / w)), at least ``least``."""
    square = remaining.square() / width
    return (1000 * (progress + torch.exp(-square) + torch.exp(-10 * square))).clamp(min=least)


def close_quaternion(
    quat: Float[Tensor, "world 4"], ideal: tuple[float, float, float, float], *, margin: float = 0.4
) -> Scalars:
    """1 at the orientation ``ideal``, falling to 0 at a distance of ``margin`` between the quaternions."""
    return (1.0 - norm(quat - constant(quat, ideal)) / margin).clamp(min=0.0)


def lifting(
    z: Scalars, rest: Scalars, goal: Scalars, *, lifted: Bool[Tensor, " world"], held: Bool[Tensor, " world"]
) -> Scalars:
    """The lifting term of version-1 rewards: 100 times the height that was reached, at most ``goal``.

    Args:
        z: height of the object; ``rest`` where it lay, ``goal`` where it is to be.
        lifted: earns all of it at any height.
        held: near the fingers; without this an object in the air earns nothing.
    """
    partly = torch.where(held & (z > rest + 0.005), torch.minimum(goal, z), 0.0)
    return 100 * torch.where(lifted, goal, partly)
