"""Soft actor-critic (Haarnoja et al. 2018) as functions of parameters: two critics, their slow copies, one policy.

The form is the later one (arXiv 1812.05905), whose critics bootstrap from slow copies of themselves and whose
temperature may follow a target entropy. What the networks see of a state is the caller's: an observation alone, or
with a latent variable beside it, through which the critics' gradient then flows into what inferred it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.networks.distributions import TanhGaussian
from metarl.networks.layers import dense, dense_params
from metarl.types import Params

LOG_STD = (-20.0, 2.0)  # of the policy's normals, as in the papers' code


class Transitions(NamedTuple):
    seen: Float[Tensor, "*batch in"]
    """What policy and critics see of a state."""
    action: Float[Tensor, "*batch act"]
    reward: Float[Tensor, " *batch"]
    next_seen: Float[Tensor, "*batch in"]
    terminated: Bool[Tensor, " *batch"]
    """No return follows; a time limit is no end."""


@dataclass(frozen=True)
class SoftNetworks:
    """A tanh-Gaussian policy and two critics: ReLU networks of the same hidden layers."""

    hidden_sizes: tuple[int, ...] = (256, 256)

    def init(self, num_seen: int, num_actions: int, generator: torch.Generator) -> tuple[Params, Params]:
        """Parameters of the policy, whose first actions are nearly tanh of standard normals, and of the critics."""
        policy = dense_params("policy", (num_seen, *self.hidden_sizes, 2 * num_actions), generator, last=0.01)
        critic = dense_params("critic", (num_seen + num_actions, *self.hidden_sizes, 1), generator, copies=(2,))
        return policy, critic

    def policy(self, params: Params, seen: Float[Tensor, "*batch in"]) -> TanhGaussian:
        mean, log_std = dense(params, "policy", seen).chunk(2, dim=-1)
        return TanhGaussian(mean, log_std.clamp(*LOG_STD))

    def critics(
        self, params: Params, seen: Float[Tensor, "*batch in"], action: Float[Tensor, "*batch act"]
    ) -> Float[Tensor, " 2 *batch"]:
        return dense(params, "critic", torch.cat([seen, action], dim=-1)).squeeze(-1)


def lower(values: Float[Tensor, " 2 *batch"]) -> Float[Tensor, " *batch"]:
    """The lower of the two critics' values."""
    return torch.minimum(values[0], values[1])


@torch.no_grad()
def bootstrapped(
    networks: SoftNetworks,
    policy: Params,
    slow: Params,
    transitions: Transitions,
    noise: Float[Tensor, "*batch act"],
    *,
    discount: float,
    temperature: Float[Tensor, ""],
) -> Float[Tensor, " *batch"]:
    """r + discount * V(s'), V(s') = min Q(s', a') - temperature * log pi(a' | s'), a' of the present policy."""
    action, log_prob = networks.policy(policy, transitions.next_seen).sample_with_log_prob(noise)
    value = lower(networks.critics(slow, transitions.next_seen, action)) - temperature * log_prob
    return transitions.reward + discount * value.masked_fill(transitions.terminated, 0.0)


def critic_loss(
    networks: SoftNetworks, critic: Params, transitions: Transitions, target: Float[Tensor, " *batch"]
) -> Float[Tensor, ""]:
    """Squared error of both critics, summed over them and averaged over transitions."""
    error = networks.critics(critic, transitions.seen, transitions.action) - target
    return error.square().mean() * len(error)


def policy_loss(
    networks: SoftNetworks,
    policy: Params,
    critic: Params,
    seen: Float[Tensor, "*batch in"],
    noise: Float[Tensor, "*batch act"],
    *,
    temperature: Float[Tensor, ""],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """E [temperature * log pi(a | s) - min Q(s, a)], and the policy's entropy as these samples estimate it."""
    action, log_prob = networks.policy(policy, seen).sample_with_log_prob(noise)
    value = lower(networks.critics(critic, seen, action))
    return (temperature * log_prob - value).mean(), -log_prob.detach().mean()


def followed(slow: Params, critic: Params, rate: float) -> Params:
    """The slow copies, moved by ``rate`` of the way to the critics."""
    moved = torch._foreach_lerp([*slow.values()], [critic[name] for name in slow], rate)
    return dict(zip(slow, moved, strict=True))
