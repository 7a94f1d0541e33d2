"""Losses and divergences of one task: (policy, params, batch) -> scalar. Losses are minimized."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.networks.protocol import Policy
from metarl.types import Params, TrajectoryBatch


@dataclass(frozen=True)
class Computed(Policy):
    """A policy that has seen the observations of a batch: losses that share its forward pass are given this."""

    dist: Any

    def init(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        return {}

    def __call__(self, params: Params, obs: Float[Tensor, "*batch obs"]) -> Any:
        return self.dist


def log_likelihood_loss(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-E[log π(a|s) A]: the inner objective of Finn et al. 2017 (equation 4), score function on fixed samples."""
    log_prob = policy(params, batch.obs).log_prob(batch.action)
    return -mean_over(log_prob * batch.advantage, batch.valid)


def ratio_loss(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-E[π(a|s) / π_old(a|s) A]: the surrogate of TRPO (Schulman et al. 2015, equation 14)."""
    return -mean_over(likelihood_ratio(policy, params, batch) * batch.advantage, batch.valid)


def lvc_loss(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-E[π(a|s) / ⊥π(a|s) A]: low variance curvature (Rothfuss et al. 2019, section 5).

    Its gradient is that of the log-likelihood; its Hessian adds score scoreᵀ, which the log-likelihood's lacks.
    """
    log_prob = policy(params, batch.obs).log_prob(batch.action)
    return -mean_over(magic_box(log_prob) * batch.advantage, batch.valid)


def dice_loss(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-E[(□(a_≤t) - □(a_<t)) A_t], over the actions of the episode so far: DiCE (Foerster et al. 2018).

    With A_t the sum of the rewards from t on, Σ_t is Foerster's Σ_t □(a_≤t) r_t less a constant; this form, of
    Farquhar et al. 2019, takes any advantage. Its Hessian is LVC's and the products of the scores of different steps,
    which make it unbiased and noisy.
    """
    log_prob = policy(params, batch.obs).log_prob(batch.action).where(batch.valid, 0.0)
    until = _cumulative(log_prob)
    before = until - log_prob
    first = torch.arange(before.shape[-1], device=before.device) - batch.clock  # the step the episode began with
    start = before.gather(-1, first)
    return -mean_over((magic_box(until - start) - magic_box(before - start)) * batch.advantage, batch.valid)


def exploration_loss(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """-Σ log π(a|s) R: E-MAML's credit of the sampling before an inner step (Stadie et al. 2018; Al-Shedivat et al.
    2018, theorem 1). R, in the batch's target, is what the adapted policy earned; log π counts from π_old on.
    """
    log_prob = policy(params, batch.obs).log_prob(batch.action) - batch.log_prob
    return -(log_prob * batch.target).where(batch.valid, 0.0).sum()


def clipped_ratio_loss(policy: Policy, params: Params, batch: TrajectoryBatch, clip: float) -> Float[Tensor, ""]:
    """PPO's surrogate (Schulman et al. 2017, equation 7): pessimistic outside [1 - clip, 1 + clip]."""
    return clipped_surrogate_loss(policy(params, batch.obs).log_prob(batch.action), batch, clip)


def clipped_surrogate_loss(
    log_prob: Float[Tensor, "*task env time"], batch: TrajectoryBatch, clip: float
) -> Float[Tensor, ""]:
    """:func:`clipped_ratio_loss`, given log π(a|s) of the batch's actions."""
    ratio = (log_prob - batch.log_prob).exp()
    surrogate = torch.minimum(ratio * batch.advantage, ratio.clamp(1 - clip, 1 + clip) * batch.advantage)
    return -mean_over(surrogate, batch.valid)


def mean_kl(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, ""]:
    """E[KL(π_old || π)], π_old the policy that acted."""
    return mean_over(batch.dist.kl(policy(params, batch.obs)), batch.valid)


def likelihood_ratio(policy: Policy, params: Params, batch: TrajectoryBatch) -> Float[Tensor, "env time"]:
    return (policy(params, batch.obs).log_prob(batch.action) - batch.log_prob).exp()


def magic_box(log_prob: Float[Tensor, "*task env time"]) -> Float[Tensor, "*task env time"]:
    """□ = exp(x - ⊥x): 1, with every derivative of the likelihood ratio, ⊥ a constant (Foerster et al. 2018)."""
    return (log_prob - log_prob.detach()).exp()


def mean_over(x: Float[Tensor, "*task env time"], valid: Bool[Tensor, "*task env time"]) -> Float[Tensor, ""]:
    """The mean over valid steps; 0 where there is none."""
    return x.where(valid, 0.0).sum() / valid.sum().clamp(min=1)


def _cumulative(x: Float[Tensor, "env time"]) -> Float[Tensor, "env time"]:
    """``cumsum`` over time; on a GPU that has to repeat its bits as a product, since its ``cumsum`` does not."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return x @ torch.ones(x.shape[-1], x.shape[-1], device=x.device, dtype=x.dtype).triu()
    return x.cumsum(-1)
