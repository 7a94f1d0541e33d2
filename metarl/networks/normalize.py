"""Running normalization of observations: mean and deviation of every step that training saw, by number of observation.

The statistics are one tensor among a policy's parameters, so that they are in checkpoints and on the policy's device,
and act in tests as training left them. No gradient reaches them and no inner step moves them: learners replace them
after a meta-update, by :func:`updated`, so that the policy is the same one from sampling to update.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import ranks
from metarl.envs.api import EnvSpec
from metarl.types import Params, TrajectoryBatch

STATISTICS = "obs_statistics"  # among the parameters: [3, obs], how many steps, their mean, their sum of squared errors
CLIP = 10.0  # deviations; a number that never moved in training may move in tests
EPSILON = 1e-8  # of the variance


def initial(spec: EnvSpec, device: torch.device) -> Params:
    """Of no step yet; float64, for counts and small variances."""
    return {STATISTICS: torch.zeros(3, spec.obs_dim, dtype=torch.float64, device=device)}


def learned(params: Params) -> Params:
    """The parameters without the statistics."""
    return {name: value for name, value in params.items() if name != STATISTICS}


def normalized(params: Params, obs: Float[Tensor, "*batch n obs"]) -> Float[Tensor, "*batch n obs"]:
    """(obs - mean) / deviation, clipped; as it is where ``params`` hold no statistics, or of no step yet."""
    if STATISTICS not in params:
        return obs
    count, mean, squares = params[STATISTICS].detach().unsqueeze(-2).unbind(-3)
    variance = torch.where(count > 0, squares / count.clamp(min=1), 1.0)
    scale = (variance + EPSILON).rsqrt().where(count > 0, 1.0)
    limit = torch.where(count > 0, CLIP, torch.inf).to(obs.dtype)
    return ((obs - mean.to(obs.dtype)) * scale.to(obs.dtype)).clamp(-limit, limit)


def updated(params: Params, batches: Sequence[TrajectoryBatch]) -> Params:
    """The parameters with the statistics of the valid steps of ``batches`` added (Chan, Golub & LeVeque 1979), the very
    same ones where they hold none."""
    if STATISTICS not in params:
        return params
    statistics = params[STATISTICS]
    for batch in batches:
        for of_rank in ranks.everyone(moments(batch)):
            statistics = merged(statistics, of_rank.to(statistics.device))
    return params | {STATISTICS: statistics}


def moments(batch: TrajectoryBatch) -> Float[Tensor, "3 obs"]:
    """Count, mean and sum of squared errors of the observations of valid steps."""
    obs, valid = batch.obs.flatten(0, -2).double(), batch.valid.flatten().unsqueeze(-1)
    count = valid.sum().double().expand(obs.shape[-1])
    mean = obs.where(valid, 0.0).sum(0) / count.clamp(min=1)
    return torch.stack([count, mean, (obs - mean).where(valid, 0.0).square().sum(0)])


def merged(first: Float[Tensor, "3 obs"], second: Float[Tensor, "3 obs"]) -> Float[Tensor, "3 obs"]:
    """The moments of two samples together."""
    (n, mean, squares), (m, other, more) = first, second
    count = (n + m).clamp(min=1)
    apart = other - mean
    return torch.stack([n + m, mean + apart * m / count, squares + more + apart.square() * n * m / count])
