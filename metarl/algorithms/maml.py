"""Model-agnostic meta-learning for reinforcement learning (Finn, Abbeel & Levine 2017, algorithm 3).

The meta-gradient is the one the paper's code computes: the derivative of the adapted policies' surrogate through the
inner gradient step, with the pre-update samples held fixed. It leaves out the score-function term of pre-update
sampling, which E-MAML and ProMP put back. ``adapt_steps=0`` is TRPO (or PPO) on all tasks jointly.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from envs.api import BadField, EnvSpec
from metarl.advantages import discounted_returns, gae, normalize
from metarl.algorithms.gradient import Loss, adapt
from metarl.algorithms.outer import PPO, TRPO, Gradient, OptimizerState
from metarl.baselines import LinearFeatureBaseline
from metarl.distributions import DiagGaussian
from metarl.objectives import log_likelihood_loss, mean_kl, mean_over
from metarl.policies import GaussianMLP
from metarl.types import Metrics, Params, Previous, TrajectoryBatch

LEARNED_RATE = "inner_lr."  # prefix of the learned step sizes among the meta-parameters


class MAMLState(NamedTuple):
    meta: Params
    """theta, and with ``learn_inner_lr`` a step size for each of its numbers under ``inner_lr.<name>``."""
    optimizer: OptimizerState


@dataclass(frozen=True)
class MAML:
    policy: GaussianMLP = field(default_factory=GaussianMLP)
    baseline: LinearFeatureBaseline = field(default_factory=LinearFeatureBaseline)
    outer: TRPO | PPO | Gradient = field(default_factory=TRPO)
    """How the meta-parameters move."""
    adapt_steps: int = 1
    """Inner gradient steps, each on fresh experience of the policy it starts from; 0: no adaptation."""
    inner_lr: float = 0.1
    """Step size alpha of the inner gradient step."""
    learn_inner_lr: bool = False
    """Meta-SGD (Li et al. 2017): learn a step size for each parameter, starting from inner_lr."""
    first_order: bool = False
    """FOMAML: leave out the derivative of the inner gradient."""
    discount: float = 0.99
    """Discount factor gamma."""
    gae_lambda: float = 1.0
    """Lambda of generalized advantage estimation."""
    bootstrap_time_limit: bool = False
    """Value of the state after the time limit: the baseline's (infinite horizon), or 0, as in Finn et al. 2017."""
    chunk_samples: int = 25_000
    """Steps of experience differentiated at a time; lower it when memory runs out."""

    def __post_init__(self) -> None:
        if self.adapt_steps < 0:
            raise BadField(f"adapt_steps is {self.adapt_steps}: use 0 or more inner steps")
        if self.inner_lr <= 0:
            raise BadField(f"inner_lr is {self.inner_lr}: use a positive step size")
        if self.chunk_samples < 1:
            raise BadField(f"chunk_samples is {self.chunk_samples}: use at least 1")
        for name in ("discount", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadField(f"{name} is {getattr(self, name)}: use a number from 0 to 1")

    @property
    def remembers(self) -> bool:
        return False

    def without_adaptation(self) -> "MAML":
        """The policy that earns most on average over tasks."""
        return replace(self, adapt_steps=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> MAMLState:
        if spec.discrete:
            raise BadField("task has discrete actions: MAML's policy is Gaussian, use RL2")
        theta = self.policy.init(spec, generator)
        rates = {LEARNED_RATE + name: torch.full_like(value, self.inner_lr) for name, value in theta.items()}
        meta = theta | rates if self.learn_inner_lr else theta
        return MAMLState(meta, self.outer.init(meta))

    def actor(self, state: MAMLState, num_tasks: int) -> Params:
        """theta for every task [task ...]."""
        theta, _ = self._split(state.meta)
        return {name: value.expand(num_tasks, *value.shape).contiguous() for name, value in theta.items()}

    def act(
        self,
        actor: Params,
        obs: Float[Tensor, "task env obs"],
        previous: Previous,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "task env act"], DiagGaussian, Params]:
        mean, log_std = self.policy(actor, obs)
        dist = DiagGaussian(mean, log_std.expand_as(mean))
        return dist.sample(generator), dist, actor

    def credit(self, state: MAMLState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages from a baseline fitted to this batch, normalized per task."""
        valid = batch.valid
        reward = batch.reward.where(valid, 0.0)
        features = self.baseline.features(batch.obs, batch.clock).where(valid.unsqueeze(-1), 0.0)
        returns = discounted_returns(reward, batch.terminated | batch.truncated, self.discount)
        coefficients = self.baseline.fit(features, returns, valid)
        value = self.baseline.predict(coefficients, features)
        if self.bootstrap_time_limit:
            next_features = self.baseline.features(batch.next_obs, batch.clock + 1)
            next_value = self.baseline.predict(coefficients, next_features).where(valid, 0.0)
        else:
            next_value = value.roll(-1, dims=-1) * ~batch.truncated
        advantage = gae(
            reward,
            value,
            next_value,
            batch.terminated,
            batch.truncated,
            discount=self.discount,
            gae_lambda=self.gae_lambda,
        )
        return batch._replace(advantage=normalize(advantage, valid), target=returns)

    def adapt(self, state: MAMLState, actor: Params, batch: TrajectoryBatch, *, scale: float = 1.0) -> Params:
        """phi of every task [task ...], by the same inner step that the meta-gradient differentiates."""
        _, inner_lr = self._split(state.meta)
        scaled = {name: scale * rate for name, rate in inner_lr.items()}

        def inner_step(phi: Params, batch: TrajectoryBatch) -> Params:
            return adapt(self.policy, phi, batch, scaled, log_likelihood_loss)

        return vmap(inner_step)(actor, batch)

    def update(self, state: MAMLState, batches: list[TrajectoryBatch]) -> tuple[MAMLState, Metrics]:
        meta, optimizer, metrics = self.outer.step(MAMLProblem(self, batches), state.meta, state.optimizer)
        metrics["train/policy_std"] = self._split(meta)[0]["log_std"].exp().mean().item()
        return MAMLState(meta, optimizer), metrics

    def adapted(self, meta: Params, batches: list[TrajectoryBatch]) -> Params:
        """phi of one task after an inner step on each batch, as a differentiable function of ``meta``."""
        phi, inner_lr = self._split(meta)
        for batch in batches:
            phi = adapt(self.policy, phi, batch, inner_lr, log_likelihood_loss, first_order=self.first_order)
        return phi

    def _split(self, meta: Params) -> tuple[Params, Params]:
        theta = {name: value for name, value in meta.items() if not name.startswith(LEARNED_RATE)}
        if self.learn_inner_lr:
            return theta, {name: meta[LEARNED_RATE + name] for name in theta}
        return theta, {name: value.new_tensor(self.inner_lr) for name, value in theta.items()}


class MAMLProblem:
    """:class:`metarl.algorithms.outer.MetaProblem` of MAML: all tasks at once, in chunks that bound the memory."""

    def __init__(self, learner: MAML, batches: list[TrajectoryBatch]) -> None:
        self._learner, self._batches = learner, batches
        self._num_tasks = batches[0].reward.shape[0]

    def gradient(self, meta: Params, loss: Loss) -> tuple[Params, float]:
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        total = {name: torch.zeros_like(value) for name, value in meta.items()}
        loss_sum = 0.0
        for chunk in self._chunks():
            value = vmap(lambda batches: self._loss_and_kl(leaves, batches, loss)[0])(chunk).sum()
            gradient = torch.autograd.grad(value, list(leaves.values()), materialize_grads=True)
            for name, piece in zip(leaves, gradient, strict=True):
                total[name] += piece / self._num_tasks
            loss_sum += value.item()
        return total, loss_sum / self._num_tasks

    @torch.no_grad()
    def evaluate(self, meta: Params, loss: Loss) -> tuple[float, float]:
        reward = self._batches[0].reward
        sums = torch.zeros(2, device=reward.device, dtype=reward.dtype)
        for chunk in self._chunks():
            values = vmap(lambda batches: torch.stack(self._loss_and_kl(meta, batches, loss)))(chunk)
            sums += values.sum(0)
        loss_value, kl = (sums / self._num_tasks).tolist()
        return loss_value, kl

    def curvature(self, meta: Params, num_samples: int) -> Callable[[Params], Params]:
        """The graph of the KL's gradient is built once; each product is one backward pass through it.

        The KL is taken from the subsample's own adapted policies, so that its gradient is zero at ``meta`` and its
        Hessian is the Fisher matrix carried through the adaptation, hence positive semidefinite.
        """
        batches = self._subsample(num_samples)
        leaves = {name: value.detach().requires_grad_() for name, value in meta.items()}
        parameters = list(leaves.values())
        kl = vmap(lambda batches: self._self_kl(leaves, batches))(batches).mean()
        gradient = torch.autograd.grad(kl, parameters, create_graph=True, materialize_grads=True)

        def product(v: Params) -> Params:
            along = torch.stack([(g * v[name]).sum() for name, g in zip(leaves, gradient, strict=True)]).sum()
            image = torch.autograd.grad(along, parameters, retain_graph=True, materialize_grads=True)
            return dict(zip(leaves, image, strict=True))

        return product

    def _loss_and_kl(
        self, meta: Params, batches: list[TrajectoryBatch], loss: Loss
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        phi = self._learner.adapted(meta, batches[:-1])
        policy = self._learner.policy
        return loss(policy, phi, batches[-1]), mean_kl(policy, phi, batches[-1])

    def _self_kl(self, meta: Params, batches: list[TrajectoryBatch]) -> Float[Tensor, ""]:
        phi, post = self._learner.adapted(meta, batches[:-1]), batches[-1]
        dist = self._learner.policy(phi, post.obs)
        fixed = DiagGaussian(dist.mean.detach(), dist.log_std.detach())
        return mean_over(fixed.kl(dist), post.valid)

    def _chunks(self) -> Iterator[list[TrajectoryBatch]]:
        samples_per_task = sum(batch.reward[0].numel() for batch in self._batches)
        size = max(1, self._learner.chunk_samples // samples_per_task)
        for start in range(0, self._num_tasks, size):
            yield tree_map(lambda x: x[start : start + size], self._batches)  # noqa: B023

    def _subsample(self, num_samples: int) -> list[TrajectoryBatch]:
        """The first worlds of tasks far apart, at least 8 worlds a task: tasks of one kind may lie side by side."""
        _, num_envs, num_steps = self._batches[-1].reward.shape
        envs = min(num_envs, max(8, num_samples // (self._num_tasks * num_steps)))
        tasks = min(self._num_tasks, max(1, num_samples // (envs * num_steps)))
        chosen = torch.arange(tasks) * self._num_tasks // tasks
        return tree_map(lambda x: x[chosen, :envs], self._batches)
