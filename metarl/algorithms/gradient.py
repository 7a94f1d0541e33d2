"""What the MAML family shares: acting, credit, and the inner step. Losses are of one task; callers ``vmap`` them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vmap

from metarl.envs.api import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.losses.advantages import Divisor, discounted_returns, gae, normalize
from metarl.losses.policy_gradient import log_likelihood_loss
from metarl.networks.mlp import MLP
from metarl.networks.protocol import Policy
from metarl.networks.values import LinearFeatureBaseline
from metarl.types import Description, Params, Previous, Stage, TrajectoryBatch, inner_stages

MOST_STEPS = 1000  # of adaptation; the experience of each is kept for the meta-update

Loss = Callable[[Policy, Params, TrajectoryBatch], Float[Tensor, ""]]
LearnerT = TypeVar("LearnerT", bound="GradientLearner")
NetworkT = TypeVar("NetworkT")
BatchT = TypeVar("BatchT")


def adapt(
    network: NetworkT,
    params: Params,
    batch: BatchT,
    inner_lr: Params,
    loss: Callable[[NetworkT, Params, BatchT], Float[Tensor, ""]],
    *,
    first_order: bool = False,
) -> Params:
    """φ = θ - α ∇L(θ; D) (Finn et al. 2017, equation 1), of a policy and its experience as of a regressor and examples.

    Args:
        inner_lr: α for each parameter that adapts, broadcastable to it; the other parameters stay.
        first_order: treat the gradient as a constant, so that ∂φ/∂θ = 1 (FOMAML).
    """
    adapting = {name: params[name] for name in inner_lr}
    gradient = grad(lambda adapting: loss(network, params | adapting, batch))(adapting)
    if first_order:
        gradient = {name: value.detach() for name, value in gradient.items()}
    return params | {name: adapting[name] - inner_lr[name] * gradient[name] for name in adapting}


def of_each(dist: Any, obs: Float[Tensor, "*batch obs"]) -> Any:
    """A distribution (a NamedTuple of tensors) with leaves [*batch act], those that all observations share repeated."""
    return type(dist)(*(x.expand(*obs.shape[:-1], x.shape[-1]) for x in dist))


@runtime_checkable
class HasMeta(Protocol):
    """A learner's state, as far as acting and adapting read it."""

    @property
    def meta(self) -> Params: ...


@dataclass(frozen=True)
class GradientLearner:
    """A policy that adapts by gradient steps; how its meta-parameters are learned is up to the subclasses."""

    policy: Policy = field(default_factory=MLP)
    """What acts and adapts."""
    baseline: LinearFeatureBaseline = field(default_factory=LinearFeatureBaseline)
    adapt_steps: int = 1
    """Inner gradient steps, each on fresh experience of the policy it starts from; 0: no adaptation."""
    inner_lr: float = 0.1
    """Step size alpha of the inner gradient step."""
    discount: float = 0.99
    """Discount factor gamma."""
    gae_lambda: float = 1.0
    """Lambda of generalized advantage estimation."""
    advantage_scale: Divisor = "std"
    """What a task's advantages, less their mean, are divided by: their standard deviation, or as code of Meta-World+
    and garage does their variance, so that the inner step and the task's weight in the outer loss go by 1 / sd."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "adapt_steps", at_least=0, at_most=MOST_STEPS)
        require(self, "inner_lr", above=0)
        require(self, "discount", "gae_lambda", at_least=0, at_most=1)

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        return inner_stages(max(1, self.adapt_steps) if steps is None else steps, later)

    def describe(self) -> Description:
        return Description(type(self).__name__, self.policy, self.inner_lr)

    def without_adaptation(self: LearnerT) -> LearnerT:
        """The policy that earns most on average over tasks."""
        return replace(self, adapt_steps=0)

    def initial_weights(self, spec: EnvSpec, generator: torch.Generator) -> Params:
        self.policy.require_fits(spec)
        return self.policy.init(spec, generator)

    def split(self, meta: Params) -> tuple[Params, Params]:
        """theta, and the step size of each of its parameters that adapts."""
        theta = self.policy.begin(meta)
        return theta, {name: theta[name].new_full((), self.inner_lr) for name in self.policy.adapting(theta)}

    def actor(self, state: HasMeta, num_tasks: int) -> Params:
        """theta for every task [task ...]."""
        theta, _ = self.split(state.meta)
        return {name: value.expand(num_tasks, *value.shape).contiguous() for name, value in theta.items()}

    def explorer(self, state: Any, num_tasks: int, generator: torch.Generator) -> Params:
        return self.actor(state, num_tasks)

    def act(
        self,
        actor: Params,
        obs: Float[Tensor, "task env obs"],
        previous: Previous,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "task env act"], Any, Params]:
        dist = of_each(self.policy.side_by_side(actor, obs), obs)
        return dist.sample(generator), dist, actor

    def credit(self, state: HasMeta, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages from a baseline fitted to this batch, normalized per task."""
        advantage, returns = self.raw_advantage(batch)
        return batch._replace(advantage=normalize(advantage, batch.valid, by=self.advantage_scale), target=returns)

    def raw_advantage(
        self, batch: TrajectoryBatch
    ) -> tuple[Float[Tensor, "task env time"], Float[Tensor, "task env time"]]:
        """Advantages in units of reward, and discounted returns."""
        valid = batch.valid
        reward = batch.reward.where(valid, 0.0)
        features = self.baseline.features(batch.obs, batch.clock).where(valid.unsqueeze(-1), 0.0)
        returns = discounted_returns(reward, batch.terminated | batch.truncated, self.discount)
        coefficients = self.baseline.fit(features, returns, valid)
        value = self.baseline.predict(coefficients, features)
        next_value = value.roll(-1, dims=-1) * ~batch.truncated  # the clock is observed: nothing follows its end
        advantage = gae(
            reward,
            value,
            next_value,
            batch.terminated,
            batch.truncated,
            discount=self.discount,
            gae_lambda=self.gae_lambda,
        )
        return advantage, returns

    def adapt(self, state: HasMeta, actor: Params, batch: TrajectoryBatch, *, scale: float = 1.0) -> Params:
        """phi of every task [task ...]. Where the batch was sampled, the gradient of every inner loss is this one."""
        _, inner_lr = self.split(state.meta)
        scaled = {name: scale * rate for name, rate in inner_lr.items()}

        def inner_step(phi: Params, batch: TrajectoryBatch) -> Params:
            return adapt(self.policy, phi, batch, scaled, log_likelihood_loss)

        return vmap(inner_step)(actor, batch)
