"""How GridNavi is searched by who knows its rules and remembers everything (Zintgraf et al. 2020, figure 1)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.networks.distributions import Categorical
from metarl.reports.references.choice import categorical
from metarl.reports.references.search import Grid, optimal_search
from metarl.types import Previous

MOVES = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
"""Of the actions: stay, up, right, down, left."""


class Known(NamedTuple):
    """What a trial has shown."""

    possible: Bool[Tensor, "task env goal"]
    """Goals that are not ruled out: the posterior is uniform over them."""
    target: Float[Tensor, "task env 2"]
    """Where the agent goes."""
    step: Int[Tensor, "task env"]
    """Of the trial."""


@dataclass(frozen=True)
class GridAgent(ABC):
    """Rules out goals; the actor is what is known, None before a trial."""

    grid: Grid

    def actor(self, state: Any, num_tasks: int) -> None:
        return None

    def act(
        self, actor: Known | None, obs: Float[Tensor, "task env 2"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env 5"], Categorical, Known]:
        goals = self.goals(obs)
        if actor is None:
            possible = torch.ones(*obs.shape[:2], len(goals), dtype=torch.bool, device=obs.device)
            known = Known(possible, torch.zeros_like(obs), torch.zeros_like(obs[..., 0]).long())
        else:
            possible = actor.possible & consistent(goals, previous.next_obs, previous.reward)
            known = actor._replace(possible=possible, step=actor.step + 1)
        found = known.possible.sum(-1, keepdim=True) == 1
        only = goals[known.possible.float().argmax(-1)]
        known = known._replace(target=only.where(found, self.target(known, generator)))
        dist = categorical(towards(obs, known.target))
        return dist.sample(generator), dist, known

    def goals(self, like: Tensor) -> Float[Tensor, "goal 2"]:
        return like.new_tensor(self.grid.goals)

    @abstractmethod
    def target(self, known: Known, generator: torch.Generator) -> Float[Tensor, "task env 2"]:
        """Where to go as long as several goals are possible."""


@dataclass(frozen=True)
class PosteriorSampling(GridAgent):
    """Goes to a goal that is drawn from the posterior at the beginning of each episode, and stays there (Strens
    2000)."""

    def target(self, known: Known, generator: torch.Generator) -> Float[Tensor, "task env 2"]:
        uniform = torch.rand(known.possible.shape, generator=generator, device=known.possible.device)
        drawn = self.goals(uniform)[uniform.where(known.possible, -1.0).argmax(-1)]
        return drawn.where((known.step % self.grid.horizon == 0).unsqueeze(-1), known.target)


@dataclass(frozen=True)
class BayesOptimal(GridAgent):
    """Searches by the best walk (:func:`metarl.reports.references.search.optimal_search`)."""

    episodes: int
    """Of a trial."""

    def target(self, known: Known, generator: torch.Generator) -> Float[Tensor, "task env 2"]:
        search = optimal_search(self.grid, self.episodes)
        if search is None or bool((known.step >= self.episodes * self.grid.horizon).any()):
            raise ValueError(f"there is no best walk of {self.grid}, or it has ended after {self.episodes} episodes")
        return torch.from_numpy(search.walk).to(known.target).flatten(0, 1)[known.step]


def consistent(
    goals: Float[Tensor, "goal 2"], cell: Float[Tensor, "*batch 2"], reward: Float[Tensor, "*batch"]
) -> Bool[Tensor, "*batch goal"]:
    """Which goals can have brought this reward for a step to this cell."""
    return (goals == cell.unsqueeze(-2)).all(-1) == (reward > 0).unsqueeze(-1)


def towards(obs: Float[Tensor, "*batch 2"], target: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 5"]:
    """The action that goes there, along the row first; at the target it stays."""
    away = (target - obs).sign()
    step = torch.stack([away[..., 0], away[..., 1].where(away[..., 0] == 0, 0.0)], dim=-1)
    return (step.unsqueeze(-2) == MOVES.to(obs.device)).all(-1).float()
