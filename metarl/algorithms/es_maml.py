"""ES-MAML: meta-gradients from returns alone (Song et al. 2020, algorithm 2, with antithetic perturbations).

V(theta) = E J(phi(theta)) is smoothed by Gaussian noise on theta, and the gradient of that needs no derivative of V:

    grad E_g V(theta + sigma g) = E_g [(V(theta + sigma g) - V(theta - sigma g)) g] / (2 sigma).

V goes through the adaptation, here the policy-gradient step that the MAML family shares, as a black box. The worlds of
a task are divided among its perturbed policies, so that all of them act, adapt and act again at once; in tests the one
policy has all worlds, hence more experience to adapt to. The ascent is Adam's (the paper: the plain gradient).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.func import vmap
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.algorithms.gradient import GradientLearner, HasMeta, adapt
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.losses.optim import OptimizerState, adam_step, flatten
from metarl.losses.policy_gradient import log_likelihood_loss
from metarl.networks.distributions import of_each
from metarl.networks.normalize import learned, updated
from metarl.types import Description, Experience, Metrics, Params, Previous, TrajectoryBatch


class ESMAMLState(NamedTuple):
    meta: Params
    optimizer: OptimizerState


@dataclass(frozen=True)
class ESMAML(GradientLearner):
    """An actor here is [task policy ...]: one policy in tests, ``2 * pairs`` perturbed ones in training."""

    called: ClassVar[str] = "es_maml"

    learning_rate: float = 1e-2
    """Adam's step size."""
    perturbation: float = 0.1
    """Standard deviation sigma of the noise on every meta-parameter."""
    pairs: int = 1
    """Antithetic pairs of perturbed policies in each task, which its worlds are divided among."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "learning_rate", "perturbation", "pairs", above=0)

    def describe(self) -> Description:
        return super().describe()._replace(num_policies=2 * self.pairs)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> ESMAMLState:
        if ranks.size() > 1:
            raise BadField(f"{ranks.size()} processes share this run: ES-MAML runs in one, start it without torchrun")
        return ESMAMLState(self.initial_weights(spec, generator), {})

    def actor(self, state: HasMeta, num_tasks: int) -> Params:
        """theta for every task [task policy=1 ...]."""
        return {name: value.unsqueeze(1) for name, value in super().actor(state, num_tasks).items()}

    def explorer(self, state: ESMAMLState, num_tasks: int, generator: torch.Generator) -> Params:
        """What acts first in training: theta + sigma g and, after all of these, theta - sigma g [task policy ...]."""
        actor = {
            name: value.expand(-1, 2 * self.pairs, *value.shape[2:])
            for name, value in self.actor(state, num_tasks).items()
        }
        for name, theta in learned(state.meta).items():
            g = torch.randn(num_tasks, self.pairs, *theta.shape, generator=generator, device=theta.device)
            actor[name] = actor[name] + self.perturbation * torch.cat([g, -g], dim=1)
        return actor

    def noise(self, explorer: Params) -> Params:
        """g [task pair ...], by half of what separates the two policies of a pair."""
        ends = {name: value.chunk(2, dim=1) for name, value in learned(explorer).items()}
        return {name: (plus - minus) / (2 * self.perturbation) for name, (plus, minus) in ends.items()}

    def act(
        self, actor: Params, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env act"], Any, Params]:
        num_policies = policies_of(actor)
        if obs.shape[1] % num_policies:
            raise BadField(f"num_envs is {obs.shape[1]}: use a multiple of 2 * pairs ({num_policies})")
        own = obs.unflatten(1, (num_policies, -1))
        dist = tree_map(lambda x: x.flatten(1, 2), of_each(self.policy.side_by_side(actor, own), own))
        return dist.sample(generator), dist, actor

    def credit(self, state: HasMeta, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Nothing yet: :meth:`adapt` knows which worlds are one policy's, and the update needs returns alone."""
        return batch

    def adapt(self, state: HasMeta, actor: Params, batch: TrajectoryBatch, *, scale: float = 1.0) -> Params:
        """phi of every policy of every task, on the experience of its own worlds alone, their advantages included."""
        _, inner_lr = self.split(state.meta)
        scaled = {name: scale * rate for name, rate in inner_lr.items()}
        num_policies = policies_of(actor)
        own = tree_map(lambda x: x.unflatten(1, (num_policies, -1)).flatten(0, 1), batch)  # [task * policy, env ...]
        own = tree_map(lambda x: x.unflatten(0, (-1, num_policies)), super().credit(state, own))
        return vmap(vmap(lambda phi, batch: adapt(self.policy, phi, batch, scaled, log_likelihood_loss)))(actor, own)

    def update(
        self, state: ESMAMLState, experience: Experience, generator: torch.Generator
    ) -> tuple[ESMAMLState, Metrics]:
        batches = experience.batches
        post = batches[-1]
        episodes = torch.stack([by_policy(valid_episodes(batch), self.pairs) for batch in batches])
        sampled = (episodes > 0).all(0).all(1)  # by both policies of a pair, before and after they adapted
        of_world = valid_episodes(post).max().clamp(min=1)
        earned = by_policy(post.reward.where(post.valid, 0.0).sum(-1), self.pairs) / (episodes[-1] / of_world)
        ascent = smoothed_gradient(self.noise(experience.explorer), earned, self.perturbation, sampled)
        norm = flatten(ascent).norm().item()
        if not norm < float("inf"):  # false for NaN
            return state, {"train/skipped_updates": 1.0}
        descent = {name: -value for name, value in ascent.items()}
        moved, optimizer = adam_step(learned(state.meta), descent, state.optimizer, self.learning_rate)
        meta = updated(state.meta | moved, batches)
        metrics = {"train/meta_gradient_norm": norm} | self.policy.metrics(meta)
        return ESMAMLState(meta, optimizer), metrics


def smoothed_gradient(
    noise: Params,
    earned: Float[Tensor, "task 2 pair"],
    perturbation: float,
    sampled: Bool[Tensor, "task pair"] | None = None,
) -> Params:
    """The mean over tasks and pairs of (J(+) - J(-)) g / (2 sigma).

    Args:
        noise: g [task pair ...].
        earned: by the policies at theta + sigma g, and at theta - sigma g.
        sampled: the pairs that count, by default all; the others' episodes diverged.
    """
    slope = (earned[:, 0] - earned[:, 1]) / (2 * perturbation)
    sampled = torch.ones_like(slope, dtype=torch.bool) if sampled is None else sampled
    slope, count = slope.where(sampled, 0.0), sampled.sum().clamp(min=1)
    return {name: torch.tensordot(slope, g, dims=2) / count for name, g in noise.items()}


def policies_of(actor: Params) -> int:
    """How many policies of a task there are side by side."""
    return next(iter(actor.values())).shape[1]


def by_policy(x: Shaped[Tensor, "task env"], pairs: int) -> Shaped[Tensor, "task 2 pair"]:
    """The sum over the worlds of each perturbed policy."""
    return x.unflatten(1, (2, pairs, -1)).sum(-1)


def valid_episodes(batch: TrajectoryBatch) -> Int[Tensor, "task env"]:
    return (batch.valid & (batch.terminated | batch.truncated)).sum(-1)
