"""Soft actor-critic on the replayed experience of many tasks: what off-policy learners of tasks share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.task_replay import Transition
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.losses.optim import OptimizerState, adam_of
from metarl.losses.sac import SoftNetworks, Transitions, bootstrapped, critic_loss, followed, policy_loss
from metarl.networks.mlp import require_layers
from metarl.types import Metrics, Params

MOST_TRANSITIONS = 2**26  # of all tasks; with 20 numbers of an observation they take 13 GB
LOG_TEMPERATURE = "log_temperature"
Terms = dict[str, Tensor]
"""What a loss consists of, and what else is recorded, by name."""


class Descended(NamedTuple):
    meta: Params
    optimizer: OptimizerState
    slow: Params
    metrics: Metrics
    """Means over the gradient steps."""


@dataclass(frozen=True)
class SoftLearner:
    """The networks of a soft actor-critic, and how many gradient steps on how much experience."""

    hidden_sizes: tuple[int, ...] = (300, 300, 300)
    """Units of each hidden layer of policy and critics."""
    num_slots: int = 100
    """Tasks that the replay holds; the one met longest ago makes room for a new one."""
    capacity: int = 10_000
    """Transitions of each of them; older ones make room for new ones."""
    warmup_steps: int = 0
    """Transitions that the replay holds before the first gradient step."""
    gradient_steps: int = 2000
    """Of a meta-update."""
    meta_batch: int = 16
    """Tasks of a gradient step."""
    batch_size: int = 256
    """Transitions of each of them that the critics learn from."""
    learning_rate: float = 3e-4
    """Adam's step size."""
    discount: float = 0.99
    """Discount factor gamma."""
    reward_scale: float = 5.0
    """Rewards are multiplied by this for the critics."""
    temperature: float | None = 1.0
    """Weight of the policy's entropy, in units of scaled reward; None: it is learned so that the entropy is minus the
    number of actions."""
    target_rate: float = 0.005
    """Share of the way to the critics that their slow copies take at each gradient step."""
    critic_reward: Literal["task", "distance"] = "task"
    """What the critics learn from: the task's reward, or minus the distance from where a step led to the task's
    parameter, where that is a place (PEARL's sparse half circle, which is tested and inferred by the sparse reward)."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require_layers("hidden_sizes", self.hidden_sizes)
        require(self, "num_slots", "capacity", "gradient_steps", "meta_batch", "batch_size", at_least=1)
        if self.num_slots * self.capacity > MOST_TRANSITIONS:
            raise BadField(
                f"num_slots is {self.num_slots} and capacity is {self.capacity}: use a product of at most "
                f"{MOST_TRANSITIONS}"
            )
        require(self, "warmup_steps", at_least=0, at_most=self.num_slots * self.capacity)
        require(self, "learning_rate", "reward_scale", above=0)
        require(self, "target_rate", above=0, at_most=1)
        require(self, "discount", at_least=0, at_most=1)
        if self.temperature is not None:
            require(self, "temperature", above=0)

    @property
    def networks(self) -> SoftNetworks:
        return SoftNetworks(self.hidden_sizes)

    def require_fits(self, spec: EnvSpec) -> None:
        if spec.discrete:
            raise BadField(f"learner is {type(self).__name__} and the task has discrete actions: use rl2, or maml")

    def initial_weights(self, num_seen: int, num_actions: int, generator: torch.Generator) -> tuple[Params, Params]:
        """Of policy, critics and what else is learned; and the slow copies of the critics."""
        policy, critic = self.networks.init(num_seen, num_actions, generator)
        learned = {} if self.temperature is not None else {LOG_TEMPERATURE: torch.zeros((), device=generator.device)}
        return policy | critic | learned, {name: value.clone() for name, value in critic.items()}

    def descend(
        self,
        meta: Params,
        optimizer: OptimizerState,
        slow: Params,
        loss: Callable[[Params, Params], tuple[Tensor, Terms]],
    ) -> Descended | None:
        """All gradient steps of a meta-update, each on what ``loss`` of parameters and slow copies draws; what it
        starts from stays as it is. None: the parameters are not finite any more."""
        leaves, adam = adam_of(meta, optimizer, self.learning_rate, fused=True)
        if not optimizer:
            slow = {name: meta[name] for name in slow}
        sums: Terms = {}
        for _ in range(self.gradient_steps):
            error, terms = loss(leaves, slow)
            for leaf, slope in zip(leaves.values(), torch.autograd.grad(error, list(leaves.values())), strict=True):
                leaf.grad = slope
            adam.step()
            slow = followed(slow, {name: leaves[name].detach() for name in slow}, self.target_rate)
            sums = {name: sums.get(name, 0.0) + term.detach() for name, term in terms.items()}
        moved = {name: leaf.detach() for name, leaf in leaves.items()}
        if not all(bool(value.isfinite().all()) for value in (*moved.values(), *slow.values())):
            return None
        means = {f"train/{name}": (total / self.gradient_steps).item() for name, total in sums.items()}
        return Descended(moved, adam.state_dict(), slow, means)

    def actor_critic_loss(
        self, params: Params, slow: Params, transitions: Transitions, noise: Float[Tensor, "2 task n act"]
    ) -> tuple[Float[Tensor, ""], Terms]:
        """Of critics, policy and temperature; a gradient flows into what critics see, and none of the policy's."""
        detached = {name: value.detach() for name, value in params.items()}
        temperature = self.temperature_of(detached)
        target = bootstrapped(
            self.networks,
            detached,
            slow,
            transitions._replace(next_seen=transitions.next_seen.detach()),
            noise[0],
            discount=self.discount,
            temperature=temperature,
        )
        error = critic_loss(self.networks, params, transitions, target)
        reached, entropy = policy_loss(
            self.networks, params, detached, transitions.seen.detach(), noise[1], temperature=temperature
        )
        loss = error + reached
        if self.temperature is None:
            loss = loss + params[LOG_TEMPERATURE] * (entropy + noise.shape[-1])
        return loss, {
            "critic_loss": error,
            "policy_entropy": entropy,
            "temperature": temperature,
            "value": target.mean(),
        }

    def temperature_of(self, params: Params) -> Float[Tensor, ""]:
        if self.temperature is None:
            return params[LOG_TEMPERATURE].exp()
        return next(iter(params.values())).new_tensor(self.temperature)

    def transitions(
        self, steps: Transition, latent: Float[Tensor, "task latent"] | None, task: Float[Tensor, "task param"]
    ) -> Transitions:
        """What policy and critics see and are paid."""
        seen, next_seen, reward = steps.obs, steps.next_obs, steps.reward
        if latent is not None:
            each = latent.unsqueeze(1).expand(-1, seen.shape[1], -1)
            seen, next_seen = torch.cat([seen, each], dim=-1), torch.cat([next_seen, each], dim=-1)
        if self.critic_reward == "distance":
            if task.shape[1] != steps.obs.shape[-1]:
                raise BadField("critic_reward is 'distance': the task's parameter is no place in its observations")
            reward = -(steps.next_obs - task.unsqueeze(1)).norm(dim=-1)
        return Transitions(seen, steps.action, self.reward_scale * reward, next_seen, steps.terminated)
