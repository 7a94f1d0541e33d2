"""Dynamic programming over an episode of a small Markov decision process whose dynamics do not change in it."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class MDP(NamedTuple):
    transition: Float[Tensor, "*batch state action next"]
    """Probability of the next state."""
    reward: Float[Tensor, "*batch state action"]
    """Its mean."""


def action_values(mdp: MDP, horizon: int) -> Float[Tensor, "*batch time state action"]:
    """Expected reward from each step to the end of the episode, acting optimally afterwards."""
    value, steps = torch.zeros_like(mdp.reward[..., 0]), []
    for _ in range(horizon):
        steps.append(mdp.reward + torch.einsum("...ijk,...k->...ij", mdp.transition, value))
        value = steps[-1].amax(-1)
    return torch.stack(steps[::-1], dim=-3)


def optimal_value(task: Float[Tensor, "task state action state+1"], horizon: int) -> Float[Tensor, " task"]:
    """Expected return of an episode for who knows the MDP, from state 0."""
    task = task.double()
    return action_values(MDP(task[..., :-1], task[..., -1]), horizon)[:, 0, 0].amax(-1)


def extended_action_values(
    mdp: MDP, slack: Float[Tensor, "*batch state action"], horizon: int
) -> Float[Tensor, "*batch time state action"]:
    """The same in the best of all MDPs whose next states differ from ``mdp``'s by at most ``slack`` in L1."""
    value, steps = torch.zeros_like(mdp.reward[..., 0]), []
    for _ in range(horizon):
        steps.append(mdp.reward + best_expectation(mdp.transition, slack, value))
        value = steps[-1].amax(-1)
    return torch.stack(steps[::-1], dim=-3)


def best_expectation(
    transition: Float[Tensor, "*batch state action next"],
    slack: Float[Tensor, "*batch state action"],
    value: Float[Tensor, "*batch next"],
) -> Float[Tensor, "*batch state action"]:
    """Expected next value when half the slack of probability moves from the worst next states to the best one."""
    value, order = value.sort(-1)
    value = value.unsqueeze(-2).unsqueeze(-2)
    probability = transition.gather(-1, order.unsqueeze(-2).unsqueeze(-2).expand_as(transition))
    moved = (0.5 * slack).minimum(1 - probability[..., -1]).unsqueeze(-1)
    worse = probability.cumsum(-1) - probability  # probability of the states worse than this one
    taken = (moved - worse).clamp(min=0).minimum(probability)
    taken[..., -1] = -moved[..., 0]
    return ((probability - taken) * value).sum(-1)
