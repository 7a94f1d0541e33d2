"""Model-agnostic meta-learning for reinforcement learning (Finn, Abbeel & Levine 2017, algorithm 3).

The objective is V(theta) = E J(phi(theta, D)): D sampled by pi_theta, phi = theta - alpha grad L(theta; D), and J the
return of phi. Its estimators differ in how they carry the derivative through the inner step and through the sampling:

| estimator | inner loss      | what its meta-gradient estimates                                                 |
|-----------|-----------------|----------------------------------------------------------------------------------|
| maml      | log pi A        | dV/dtheta with D held fixed: what Finn et al.'s code computes                    |
| fomaml    | log pi A        | maml's with d phi / d theta the identity                                         |
| emaml     | log pi A        | dV/dtheta: adds the score function of sampling D (Stadie et al. 2018)            |
| dice      | magic boxes     | dJ(theta - alpha grad E L)/dtheta, the Hessian unbiased (Foerster et al. 2018)   |
| lvc       | pi / pi fixed A | the same less the products of scores of different steps (Rothfuss et al. 2019)   |

The last two reach their limits as D grows; short of it they also carry the covariance of Hessian and adapted policy.
All five take the same inner step. ``adapt_steps=0`` is TRPO (or PPO) on all tasks jointly.
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap

from metarl import ranks
from metarl.algorithms.gradient import Loss
from metarl.algorithms.meta_gradient import MAMLProblem, MetaGradientLearner
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.losses.advantages import center, divisor
from metarl.losses.optim import OptimizerState
from metarl.losses.policy_gradient import dice_loss, exploration_loss, log_likelihood_loss, lvc_loss, mean_over
from metarl.networks.normalize import updated
from metarl.types import Description, Experience, Metrics, Params, TrajectoryBatch

INNER_LOSSES: dict[str, Loss] = {"lvc": lvc_loss, "dice": dice_loss}


class MAMLState(NamedTuple):
    meta: Params
    """theta, and with ``learn_inner_lr`` a step size for each of its numbers under ``inner_lr.<name>``."""
    optimizer: OptimizerState


@dataclass(frozen=True)
class MAML(MetaGradientLearner):
    outer: TRPO | PPO | Gradient = field(default_factory=TRPO)
    """How the meta-parameters move."""
    estimator: Literal["maml", "fomaml", "emaml", "dice", "lvc"] = "maml"
    """Of the meta-gradient: as in the MAML paper, first order, with credit for exploration, DiCE, low variance
    curvature."""
    exploration_weight: float = 1.0
    """Weight of E-MAML's credit for exploration: 1 makes the gradient exact, and noisy; published code (ProMP's) takes
    the mean over pre-update steps, which is 1 / their number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "exploration_weight", at_least=0)
        if self.estimator == "emaml" and self.task_weights != "equal":
            raise BadField(
                f"task_weights is {self.task_weights!r}: E-MAML's credit for exploration has none, use equal"
            )

    def describe(self) -> Description:
        parts = [type(self).__name__, type(self.outer).__name__, self.estimator if self.estimator != "maml" else ""]
        return self.described(parts)

    @property
    def inner_loss(self) -> Loss:
        return INNER_LOSSES.get(self.estimator, log_likelihood_loss)

    @property
    def first_order(self) -> bool:
        return self.estimator == "fomaml"

    def init(self, spec: EnvSpec, generator: torch.Generator) -> MAMLState:
        meta = self.initial_meta(spec, generator)
        return MAMLState(meta, {})

    def update(self, state: MAMLState, experience: Experience, generator: torch.Generator) -> tuple[MAMLState, Metrics]:
        batches = experience.batches
        meta, optimizer, metrics = self.outer.step(self.problem(batches), state.meta, state.optimizer)
        if "train/skipped_updates" not in metrics:
            meta = updated(meta, batches)
        return MAMLState(meta, optimizer), metrics | self.policy.metrics(meta)

    def problem(self, batches: list[TrajectoryBatch]) -> MAMLProblem:
        """The meta-loss of a meta-batch."""
        if self.estimator == "emaml" and self.adapt_steps > 0:
            return MAMLProblem(self, self.credit_exploration(batches), self.sampling_loss)
        return MAMLProblem(self, self.weighted(batches))

    def credit_exploration(self, batches: list[TrajectoryBatch]) -> list[TrajectoryBatch]:
        """The target of each pre-update step: what the adapted policy earns a step beyond those of the other tasks.

        The other tasks' mean is a baseline that has no part in this task's sampling. Advantages are normalized, so
        this is divided by their standard deviation (or variance), too.
        """
        post = batches[-1]
        earned = vmap(mean_over)(post.reward, post.valid)
        others = (ranks.total(earned.sum()) - earned) / max(1, len(earned) * ranks.size() - 1)
        _, std = center(self.raw_advantage(post)[0], post.valid)
        unit = divisor(std, self.advantage_scale) + 1e-8
        credit = self.exploration_weight * (earned - others).view(-1, 1, 1) / unit
        return [batch._replace(target=credit.expand_as(batch.target)) for batch in batches[:-1]] + [post]

    def sampling_loss(self, path: list[Params], batches: list[TrajectoryBatch]) -> Float[Tensor, ""]:
        """E-MAML's credit of the policies before each inner step, for what they sampled."""
        losses = [exploration_loss(self.policy, phi, batch) for phi, batch in zip(path, batches, strict=True)]
        return torch.stack(losses).sum()
