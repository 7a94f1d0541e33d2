"""Mean and standard deviation of returns at each step of a trial, followed from update to update.

A value head that predicts by how many deviations a step differs from the mean need not learn time and scale.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl import ranks
from metarl.losses.policy_gradient import mean_over
from metarl.types import Params, TrajectoryBatch

SMALLEST_STD = 0.05  # of the largest one over time: where returns hardly differ, errors must not count the most


def share_of(valid: Bool[Tensor, "*batch"]) -> Float[Tensor, ""] | None:
    """The share of this rank in the valid steps of all; None where it is the only one."""
    if ranks.size() == 1:
        return None
    count = valid.sum().float()
    return count / ranks.total(count).clamp(min=1)


def scale_of_all(
    returns: Float[Tensor, "task env time"], valid: Bool[Tensor, "task env time"]
) -> Float[Tensor, "reached 2"]:
    """:func:`scale_by_step` over the tasks of all ranks."""
    return scale_by_step(ranks.gathered(returns), ranks.gathered(valid))


def mean_and_std_of(x: Float[Tensor, "*batch"], valid: Bool[Tensor, "*batch"]) -> Float[Tensor, "2"]:
    """Over the valid ones; the deviation is no less than a thousandth, so that it can be divided by."""
    mean = mean_over(x, valid)
    return torch.stack([mean, mean_over((x - mean).square(), valid).sqrt().clamp(min=1e-3)])


def followed(stats: Params, batch: TrajectoryBatch, *, rate: float) -> Params:
    """A running ``mean`` and ``std`` of rewards, moved towards those of a batch of all ranks; none stay none."""
    if not stats:
        return stats
    mean, std = mean_and_std_of(ranks.gathered(batch.reward), ranks.gathered(batch.valid))
    return {"mean": stats["mean"].lerp(mean, rate), "std": stats["std"].lerp(std, rate)}


def scale_by_step(
    returns: Float[Tensor, "task env time"], valid: Bool[Tensor, "task env time"]
) -> Float[Tensor, "reached 2"]:
    """Mean and standard deviation over the trials that have a valid step at this time, up to the last one any has."""
    reached = int(valid.any(0).any(0).nonzero().max()) + 1 if valid.any() else 0
    returns, valid = returns[..., :reached], valid[..., :reached]
    count = valid.sum((0, 1)).clamp(min=1)
    mean = returns.where(valid, 0.0).sum((0, 1)) / count
    std = ((returns - mean).where(valid, 0.0).square().sum((0, 1)) / count).sqrt()
    smallest = 1e-6 + SMALLEST_STD * std.max() if reached else 1e-6
    return torch.stack([mean, std.clamp(min=smallest)], dim=-1)


def mean_and_std(
    scale: Float[Tensor, "known 2"], num_steps: int
) -> tuple[Float[Tensor, " time"], Float[Tensor, " time"]]:
    """A scale of exactly so many steps; what lies beyond the known ones has no valid step, so any number will do."""
    missing = max(0, num_steps - len(scale))
    mean, std = torch.nn.functional.pad(scale, (0, 0, 0, missing), value=1.0)[:num_steps].unbind(-1)
    return mean, std


def follow(
    running: Float[Tensor, "before 2"], found: Float[Tensor, "time 2"], *, rate: float
) -> Float[Tensor, "after 2"]:
    """The running scale, moved to the one found where there was one, and begun with it where there was none."""
    common = min(len(running), len(found))
    rest = running if len(running) > common else found
    return torch.cat([running[:common].lerp(found[:common], rate), rest[common:]])
