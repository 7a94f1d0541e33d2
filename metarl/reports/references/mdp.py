"""Algorithms for small Markov decision processes that RL² is compared with (Duan et al. 2016, section 3.2).

They know the states, the actions and the horizon, and plan by dynamic programming when an episode begins. Definitions
after TabulaRL (Osband, github.com/iosband/TabulaRL, src/finite_tabular_agents.py), but priors are the true ones: next
states Dirichlet(1, ..., 1), mean rewards N(1, 1), noise N(0, 1). The paper's numbers fit TabulaRL's own priors: mean
rewards N(0, 1), with which PSRL earns 137 in 10 episodes, and next to none for greedy, which then earns 136, not 155.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.networks.distributions import Categorical
from metarl.reports.references.choice import categorical, explore, uniform_over_best
from metarl.reports.references.planning import MDP, action_values, extended_action_values
from metarl.types import Previous

TIE = 1e-5  # action values that are equal on paper differ by rounding


class Memory(NamedTuple):
    """What was seen in a trial, and what to do."""

    transitions: Float[Tensor, "task env state action next"]
    """How often; the state after the last step of an episode is not seen."""
    reward: Float[Tensor, "task env state action"]
    """Sum."""
    visits: Float[Tensor, "task env state action"]
    """How often the reward was seen."""
    state: Float[Tensor, "task env state"]
    """Where the next action is taken, one-hot."""
    episode: Int[Tensor, "task env"]
    """Its number, from 1."""
    clock: Int[Tensor, "task env"]
    """Steps since it began."""
    plan: Float[Tensor, "task env time state action"]
    """Action values by clock."""

    def mean(self) -> MDP:
        """Of the posterior."""
        alpha = 1 + self.transitions
        return MDP(alpha / alpha.sum(-1, keepdim=True), (1 + self.reward) / (1 + self.visits))

    def sample(self, generator: torch.Generator) -> MDP:
        """A draw from the posterior."""
        gamma = torch._standard_gamma(1 + self.transitions, generator=generator)
        noise = torch.randn(self.reward.shape, generator=generator, device=self.reward.device)
        return MDP(gamma / gamma.sum(-1, keepdim=True), self.mean().reward + noise / (1 + self.visits).sqrt())

    def empirical(self) -> MDP:
        """Means of what was seen, without a prior; where nothing was, reward 0 and any next state."""
        count = self.transitions.sum(-1, keepdim=True)
        uniform = torch.full_like(self.transitions, 1 / self.transitions.shape[-1])
        return MDP((self.transitions / count).where(count > 0, uniform), self.reward / self.visits.clamp(min=1))


@dataclass(frozen=True)
class MDPAgent(ABC):
    """Remembers transitions and rewards; the actor is its memory, None before a trial."""

    horizon: int
    """Steps of an episode."""

    def actor(self, state: Any, num_tasks: int) -> None:
        return None

    def act(
        self, actor: Memory | None, obs: Float[Tensor, "task env state"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env action"], Categorical, Memory]:
        starts = previous.terminated | previous.truncated | ~previous.action.any(-1)
        memory = empty(obs, previous.action.shape[-1], self.horizon) if actor is None else actor
        memory = remember(memory, obs, previous, starts)
        if starts.any():
            plan = self.plan(memory, generator)
            memory = memory._replace(plan=plan.where(starts[..., None, None, None], memory.plan))
        now = memory.plan.take_along_dim(memory.clock[..., None, None, None], dim=2).squeeze(2)
        dist = categorical(self.probability((now * obs.unsqueeze(-1)).sum(-2)))
        return dist.sample(generator), dist, memory

    @abstractmethod
    def plan(self, memory: Memory, generator: torch.Generator) -> Float[Tensor, "task env time state action"]:
        """Action values for the coming episode."""

    def probability(self, value: Float[Tensor, "task env action"]) -> Float[Tensor, "task env action"]:
        """Of each action, given the action values."""
        return uniform_over_best(value, TIE)


def empty(obs: Float[Tensor, "task env state"], actions: int, horizon: int) -> Memory:
    """Nothing seen yet."""
    batch, states = obs.shape[:2], obs.shape[2]
    return Memory(
        transitions=obs.new_zeros(*batch, states, actions, states),
        reward=obs.new_zeros(*batch, states, actions),
        visits=obs.new_zeros(*batch, states, actions),
        state=torch.zeros_like(obs),
        episode=torch.zeros(batch, dtype=torch.int64, device=obs.device),
        clock=torch.zeros(batch, dtype=torch.int64, device=obs.device),
        plan=obs.new_zeros(*batch, horizon, states, actions),
    )


def remember(
    memory: Memory, obs: Float[Tensor, "task env state"], previous: Previous, starts: Bool[Tensor, "task env"]
) -> Memory:
    """The memory after a step; before a trial's first one ``previous.action`` is zeros, and nothing is counted."""
    taken = memory.state.unsqueeze(-1) * previous.action.unsqueeze(-2)
    reached = obs.masked_fill(starts.unsqueeze(-1), 0.0)  # after a reset it is not where the step led
    return memory._replace(
        transitions=memory.transitions + taken.unsqueeze(-1) * reached[..., None, None, :],
        reward=memory.reward + taken * previous.reward[..., None, None],
        visits=memory.visits + taken,
        state=obs,
        episode=memory.episode + starts.long(),
        clock=(memory.clock + 1).masked_fill(starts, 0),
    )


@dataclass(frozen=True)
class GreedyMDP(MDPAgent):
    """Plans in the posterior mean."""

    def plan(self, memory: Memory, generator: torch.Generator) -> Float[Tensor, "task env time state action"]:
        return action_values(memory.mean(), self.horizon)


@dataclass(frozen=True)
class EpsilonGreedyMDP(GreedyMDP):
    """The same, with any action with probability epsilon."""

    epsilon: float

    def probability(self, value: Float[Tensor, "task env action"]) -> Float[Tensor, "task env action"]:
        return explore(super().probability(value), self.epsilon)


@dataclass(frozen=True)
class BEB(MDPAgent):
    """Plans in the posterior mean with beta / (1 + visits) added to the reward (Kolter & Ng 2009).

    Their visits count the prior, too; these do not.
    """

    beta: float

    def plan(self, memory: Memory, generator: torch.Generator) -> Float[Tensor, "task env time state action"]:
        mean = memory.mean()
        return action_values(mean._replace(reward=mean.reward + self.beta / (1 + memory.visits)), self.horizon)


@dataclass(frozen=True)
class PSRL(MDPAgent):
    """Plans in a draw from the posterior, one an episode (Strens 2000; Osband et al. 2013)."""

    def plan(self, memory: Memory, generator: torch.Generator) -> Float[Tensor, "task env time state action"]:
        return action_values(memory.sample(generator), self.horizon)


@dataclass(frozen=True)
class OptimisticPSRL(MDPAgent):
    """The largest of the action values in several draws, each planned in by itself (TabulaRL)."""

    samples: int = 10

    def plan(self, memory: Memory, generator: torch.Generator) -> Float[Tensor, "task env time state action"]:
        plan = action_values(memory.sample(generator), self.horizon)
        for _ in range(self.samples - 1):
            plan = plan.maximum(action_values(memory.sample(generator), self.horizon))
        return plan


@dataclass(frozen=True)
class UCRL2(MDPAgent):
    """Plans in the best MDP of a confidence set around what was seen (Jaksch et al. 2010), a new one each episode.

    With n visits in episode e, the reward may be higher by scaling * sqrt(4 ln(2 S A (e + 1) / delta) / n), and the
    next states differ by sqrt(S) times as much in L1 (TabulaRL, whose slacks add up from step to step of a plan, as it
    widens the estimate in place: not so here).
    """

    scaling: float
    delta: float = 0.05

    def plan(self, memory: Memory, generator: torch.Generator) -> Float[Tensor, "task env time state action"]:
        states, actions = memory.reward.shape[-2:]
        log = (2 * states * actions * (memory.episode[..., None, None] + 1) / self.delta).log()
        slack = self.scaling * (4 * log / memory.visits.clamp(min=1)).sqrt()
        spread = self.scaling * (4 * states * log / memory.transitions.sum(-1).clamp(min=1)).sqrt()
        mdp = memory.empirical()
        return extended_action_values(mdp._replace(reward=mdp.reward + slack), spread, self.horizon)


TUNED = {
    10: (0.05, 0.5, 0.01),
    25: (0.1, 1.0, 0.01),
    50: (0.1, 1.0, 0.01),
    75: (0.1, 1.0, 0.02),
    100: (0.1, 2.0, 0.02),
}
"""UCRL2's scaling, BEB's beta and epsilon by episodes of a trial.

The best on average of scaling in {.005, .01, .02, .03, .05, .1, .2}, beta in {.25, .5, 1, 2, 3, 5, 10} and epsilon in
{.01, .02, .05, .1, .2} over 2,000 random tasks, the same for all candidates, none of them held out for evaluation.
"""


def tuned(episodes: int) -> tuple[float, float, float]:
    """Scaling, beta and epsilon; those of 50 episodes for trials that nothing was tuned for."""
    return TUNED.get(episodes, (0.1, 1.0, 0.01))
