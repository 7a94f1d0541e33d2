"""Proximal meta-policy search (Rothfuss et al. 2019, algorithm 1).

The inner step descends the likelihood-ratio surrogate, whose Hessian has low variance; the outer loss is PPO's clipped
surrogate of the adapted policies, with a penalty on how far each sampling policy moves from the one that sampled:

    J(theta) = J_clip(phi(theta)) - mean over inner steps k of eta_k KL(pi_old,k || pi_k).
"""

from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.gradient import Loss
from metarl.algorithms.meta_gradient import MAMLProblem, MetaGradientLearner
from metarl.algorithms.outer import PPO
from metarl.envs.api import EnvSpec
from metarl.envs.fields import require
from metarl.losses.optim import OptimizerState
from metarl.losses.policy_gradient import mean_kl, ratio_loss
from metarl.networks.normalize import updated
from metarl.types import Description, Experience, Metrics, Params, TrajectoryBatch


class ProMPState(NamedTuple):
    meta: Params
    optimizer: OptimizerState
    kl_penalty: Float[Tensor, " step"]
    """eta of each inner step."""


@dataclass(frozen=True)
class ProMP(MetaGradientLearner):
    outer: PPO = field(default_factory=PPO)
    """Clip range, epochs and step size of the outer loss."""
    kl_penalty: float = 5e-4
    """Weight eta of the KL between each sampling policy and the one it becomes, before any inner step."""
    target_kl: float = 0.0
    """That KL is held near this by halving or doubling eta after an update; 0: eta stays."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "kl_penalty", "target_kl", at_least=0)

    def describe(self) -> Description:
        return self.described([type(self).__name__, type(self.outer).__name__])

    @property
    def inner_loss(self) -> Loss:
        return ratio_loss

    def init(self, spec: EnvSpec, generator: torch.Generator) -> ProMPState:
        meta = self.initial_meta(spec, generator)
        return ProMPState(meta, {}, torch.full((self.adapt_steps,), self.kl_penalty, device=generator.device))

    def update(
        self, state: ProMPState, experience: Experience, generator: torch.Generator
    ) -> tuple[ProMPState, Metrics]:
        batches = experience.batches
        problem = self.problem(state, batches)
        meta, optimizer, metrics = self.outer.step(problem, state.meta, state.optimizer)
        metrics |= self.policy.metrics(meta)
        eta = state.kl_penalty
        if self.adapt_steps > 0:
            kl = problem.mean_over_tasks(lambda batches: self._kl(self.path(meta, batches[:-2]), batches[:-1]))
            metrics |= {"train/inner_kl": kl.mean().item(), "train/kl_penalty": eta.mean().item()}
            if self.target_kl > 0 and "train/skipped_updates" not in metrics:
                eta = adapted_penalty(eta, kl, self.target_kl)
        if "train/skipped_updates" not in metrics:
            meta = updated(meta, batches)
        return ProMPState(meta, optimizer, eta), metrics

    def problem(self, state: ProMPState, batches: list[TrajectoryBatch]) -> MAMLProblem:
        """The meta-loss of a meta-batch."""
        penalty = partial(self._penalty, state.kl_penalty) if self.adapt_steps > 0 else None
        return MAMLProblem(self, self.weighted(batches), penalty)

    def _penalty(self, eta: Tensor, path: list[Params], batches: list[TrajectoryBatch]) -> Float[Tensor, ""]:
        return (eta * self._kl(path, batches)).mean()

    def _kl(self, path: list[Params], batches: list[TrajectoryBatch]) -> Float[Tensor, " step"]:
        """KL of each policy before an inner step from the one that sampled there."""
        return torch.stack([mean_kl(self.policy, phi, batch) for phi, batch in zip(path, batches, strict=True)])


def adapted_penalty(eta: Float[Tensor, " step"], kl: Float[Tensor, " step"], target: float) -> Float[Tensor, " step"]:
    """Half of eta where the KL is below target / 1.5, twice where it is above 1.5 target (Schulman et al. 2017)."""
    eta = eta.where(kl >= target / 1.5, eta / 2)
    return eta.where(kl <= target * 1.5, eta * 2)
