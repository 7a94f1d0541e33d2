"""Returns, generalized advantage estimation, and normalization, along the last axis (``time``)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Divisor = Literal["std", "variance"]
"""What centered advantages are divided by."""


def discounted_returns(
    reward: Float[Tensor, "*batch time"], ended: Bool[Tensor, "*batch time"], discount: float
) -> Float[Tensor, "*batch time"]:
    """G_t = r_t + γ G_{t+1}, starting anew after each step that ``ended`` an episode."""
    return _discounted_sum(reward, discount * (~ended).to(reward.dtype))


def gae(
    reward: Float[Tensor, "*batch time"],
    value: Float[Tensor, "*batch time"],
    next_value: Float[Tensor, "*batch time"],
    terminated: Bool[Tensor, "*batch time"],
    truncated: Bool[Tensor, "*batch time"],
    *,
    discount: float,
    gae_lambda: float,
) -> Float[Tensor, "*batch time"]:
    """Generalized advantage estimation (Schulman et al. 2016, equation 16).

    δ_t = r_t + γ V(s_{t+1}) - V(s_t), without V(s_{t+1}) where the MDP terminated;
    A_t = δ_t + γ λ A_{t+1}, without A_{t+1} where an episode ended in either way.

    Args:
        value: V(s_t), of the observation the action was taken in.
        next_value: V(s_{t+1}), of the observation the action led to, before any reset.
        terminated: the step ended the MDP.
        truncated: the step hit a time limit; its V(s_{t+1}) still counts.
    """
    delta = reward + discount * next_value * ~terminated - value
    goes_on = (~(terminated | truncated)).to(reward.dtype)
    return _discounted_sum(delta, discount * gae_lambda * goes_on)


def normalize(
    x: Float[Tensor, "*task env time"],
    valid: Bool[Tensor, "*task env time"],
    *,
    by: Divisor = "std",
    epsilon: float = 1e-8,
) -> Float[Tensor, "*task env time"]:
    """Zero mean and unit standard deviation over the valid steps of each task; zero elsewhere.

    Divided by the variance instead, the standard deviation becomes 1 / what it was.
    """
    centered, std = center(x, valid)
    return centered / (divisor(std, by) + epsilon)


def divisor(std: Float[Tensor, "*task 1 1"], by: Divisor) -> Float[Tensor, "*task 1 1"]:
    return std if by == "std" else std.square()


def center(
    x: Float[Tensor, "*task env time"], valid: Bool[Tensor, "*task env time"]
) -> tuple[Float[Tensor, "*task env time"], Float[Tensor, "*task 1 1"]]:
    """x less its mean over the valid steps of each task, zero elsewhere; and its standard deviation."""
    x = x.where(valid, 0.0)
    count = valid.sum((-2, -1), keepdim=True).clamp(min=1)
    centered = (x - x.sum((-2, -1), keepdim=True) / count) * valid
    return centered, (centered.square().sum((-2, -1), keepdim=True) / count).sqrt()


def _discounted_sum(x: Float[Tensor, "*batch time"], decay: Float[Tensor, "*batch time"]) -> Tensor:
    """y_t = x_t + decay_t y_{t+1}, y = 0 past the end."""
    columns = list(x.unbind(-1))
    decays = decay.unbind(-1)
    for t in reversed(range(len(columns) - 1)):
        columns[t] = columns[t] + decays[t] * columns[t + 1]
    return torch.stack(columns, dim=-1)
