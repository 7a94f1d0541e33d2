"""How far VariBAD's belief is from Bayes' rule on GridNavi, where both are distributions over the goals."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.networks.belief import BeliefModel, Posterior, Transitions
from metarl.reports.references.grid_navi import consistent
from metarl.reports.references.search import Grid
from metarl.types import Params, TrajectoryBatch


def exact_belief(grid: Grid, batch: TrajectoryBatch) -> Float[Tensor, "trial moment goal"]:
    """The posterior over goals before the first and after each step of trials: uniform over those not ruled out."""
    goals = batch.reward.new_tensor(grid.goals)
    possible = consistent(goals, batch.next_obs, batch.reward).flatten(0, 1).long().cumprod(1).to(batch.reward)
    possible = torch.cat([torch.ones_like(possible[:, :1]), possible], dim=1)
    return possible / possible.sum(-1, keepdim=True)


@torch.no_grad()
def decoded_belief(
    model: BeliefModel, params: Params, grid: Grid, batch: TrajectoryBatch, generator: torch.Generator, draws: int = 32
) -> Float[Tensor, "trial moment goal"]:
    """The same as the reward decoder says it, of as many draws of the latent: the probability that a cell pays, over
    the sum of that over all goals."""
    steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
    mean, log_var = (x.expand(draws, *x.shape) for x in model.posteriors(params, steps))
    pays = model.reward_logits(params, Posterior(mean, log_var).sample(generator)).sigmoid().mean(0)
    pays = pays[..., model.index(batch.reward.new_tensor(grid.goals))]
    return pays / pays.sum(-1, keepdim=True)


def total_variation(
    one: Float[Tensor, "trial moment goal"], other: Float[Tensor, "trial moment goal"]
) -> Float[Tensor, "trial moment"]:
    """Half the sum of absolute differences: 0 of equal distributions, 1 of such that have no goal in common."""
    return 0.5 * (one - other).abs().sum(-1)


def found_by(grid: Grid, batch: TrajectoryBatch) -> Bool[Tensor, "trial moment"]:
    """Whether one goal alone is possible."""
    return exact_belief(grid, batch).amax(-1) == 1
