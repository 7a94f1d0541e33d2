"""Losses and divergences of one task: (policy, params, batch) -> scalar. Losses are minimized."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.policies import GaussianMLP
from metarl.types import Params, TrajectoryBatch


def log_likelihood_loss(policy: GaussianMLP, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-E[log π(a|s) A]: the inner objective of Finn et al. 2017 (equation 4), score function on fixed samples."""
    log_prob = policy(params, batch.obs).log_prob(batch.action)
    return -mean_over(log_prob * batch.advantage, batch.valid)


def ratio_loss(policy: GaussianMLP, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-E[π(a|s) / π_old(a|s) A]: the surrogate of TRPO (Schulman et al. 2015, equation 14)."""
    return -mean_over(likelihood_ratio(policy, params, batch) * batch.advantage, batch.valid)


def clipped_ratio_loss(policy: GaussianMLP, params: Params, batch: TrajectoryBatch, clip: float) -> Float[Tensor, ""]:
    """PPO's surrogate (Schulman et al. 2017, equation 7): pessimistic outside [1 - clip, 1 + clip]."""
    return clipped_surrogate_loss(policy(params, batch.obs).log_prob(batch.action), batch, clip)


def clipped_surrogate_loss(
    log_prob: Float[Tensor, "*task env time"], batch: TrajectoryBatch, clip: float
) -> Float[Tensor, ""]:
    """:func:`clipped_ratio_loss`, given log π(a|s) of the batch's actions."""
    ratio = (log_prob - batch.log_prob).exp()
    surrogate = torch.minimum(ratio * batch.advantage, ratio.clamp(1 - clip, 1 + clip) * batch.advantage)
    return -mean_over(surrogate, batch.valid)


def mean_kl(policy: GaussianMLP, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """E[KL(π_old || π)], π_old the policy that acted."""
    return mean_over(batch.dist.kl(policy(params, batch.obs)), batch.valid)


def likelihood_ratio(policy: GaussianMLP, params: Params, batch: TrajectoryBatch) -> Float[Tensor, "env time"]:
    return (policy(params, batch.obs).log_prob(batch.action) - batch.log_prob).exp()


def mean_over(x: Float[Tensor, "*task env time"], valid: Bool[Tensor, "*task env time"]) -> Float[Tensor, ""]:
    """The mean over valid steps; 0 where there is none."""
    return x.where(valid, 0.0).sum() / valid.sum().clamp(min=1)
