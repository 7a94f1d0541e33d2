"""Algorithms for Bernoulli bandits that RL² is compared with (Duan et al. 2016, section 3.1).

All believe in the true prior, Beta(1, 1) for each arm, and take one of the best arms at random where several are.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.networks.distributions import Categorical
from metarl.reports.references.choice import categorical, explore, uniform_over_best
from metarl.reports.references.gittins import gittins_indices
from metarl.types import Previous


class Counts(NamedTuple):
    """What is known of each arm."""

    successes: Float[Tensor, "task env arm"]
    failures: Float[Tensor, "task env arm"]

    @property
    def pulls(self) -> Float[Tensor, "task env arm"]:
        return self.successes + self.failures

    def mean(self) -> Float[Tensor, "task env arm"]:
        """Of the posterior of an arm's probability."""
        return (1 + self.successes) / (2 + self.pulls)

    def sample(self, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        """A draw from that posterior."""
        for_success = torch._standard_gamma(1 + self.successes, generator=generator)
        return for_success / (for_success + torch._standard_gamma(1 + self.failures, generator=generator))


@dataclass(frozen=True)
class BanditAgent(ABC):
    """Counts payoffs of 1 and 0; the actor is the counts, None before a trial."""

    def actor(self, state: Any, num_tasks: int) -> None:
        return None

    def act(
        self, actor: Counts | None, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env arm"], Categorical, Counts]:
        pulled, payoff = previous.action, previous.reward.unsqueeze(-1)  # zeros before the first pull
        successes, failures = (torch.zeros_like(pulled),) * 2 if actor is None else actor
        counts = Counts(successes + pulled * payoff, failures + pulled * (1 - payoff))
        dist = categorical(self.probability(counts, generator))
        return dist.sample(generator), dist, counts

    @abstractmethod
    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        """Of pulling each arm next."""


@dataclass(frozen=True)
class Greedy(BanditAgent):
    """The arm of the highest posterior mean."""

    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        return uniform_over_best(counts.mean())


@dataclass(frozen=True)
class EpsilonGreedy(BanditAgent):
    """With probability epsilon any arm, else that of the highest posterior mean."""

    epsilon: float

    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        return explore(uniform_over_best(counts.mean()), self.epsilon)


@dataclass(frozen=True)
class ThompsonSampling(BanditAgent):
    """The best arm of a draw from the posterior (Thompson 1933)."""

    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        return uniform_over_best(counts.sample(generator))


@dataclass(frozen=True)
class OptimisticThompsonSampling(BanditAgent):
    """Thompson sampling where no draw counts less than the posterior mean (May et al. 2012).

    The RL² paper does not define its OTS, which is not this: it earns more, 6.5 for 6.0 in 10 pulls of 5 arms and
    67.7 for 64.6 in 100 pulls of 50.
    """

    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        return uniform_over_best(torch.maximum(counts.sample(generator), counts.mean()))


@dataclass(frozen=True)
class UCB1(BanditAgent):
    """Highest (1 + s) / (2 + n) + c sqrt(2 ln(t + 2) / (n + 2)), after t pulls in all, n and s successes of the arm.

    The form that reproduces the RL² paper's numbers: Auer et al. 2002 with the prior's two pulls of each arm counted
    in. As they have it each arm is pulled once first, which earns 5.0 in 10 pulls of 50 arms where the paper has 6.6.
    """

    c: float

    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        total = counts.pulls.sum(-1, keepdim=True)
        return uniform_over_best(counts.mean() + self.c * (2 * (total + 2).log() / (counts.pulls + 2)).sqrt())


@dataclass(frozen=True)
class Gittins(BanditAgent):
    """The arm of the highest Gittins index, which is optimal for a discounted trial without end."""

    discount: float
    pulls: int
    """Pulls of a trial at most."""

    def probability(self, counts: Counts, generator: torch.Generator) -> Float[Tensor, "task env arm"]:
        if counts.pulls.sum(-1).max() >= self.pulls:
            raise ValueError(f"a trial went on after {self.pulls} pulls, for which the indices were made")
        index = gittins_indices(self.pulls, self.discount).to(counts.successes.device)
        return uniform_over_best(index[counts.successes.long(), counts.failures.long()])


TUNED = {
    (10, 5): (0.05, 0.01),
    (10, 10): (0.05, 0.01),
    (10, 50): (0.05, 0.01),
    (100, 5): (0.2, 0.01),
    (100, 10): (0.2, 0.01),
    (100, 50): (0.2, 0.01),
    (500, 5): (0.2, 0.05),
    (500, 10): (0.2, 0.05),
    (500, 50): (0.2, 0.05),
}
"""UCB1's c and epsilon by pulls and arms: the RL² paper tuned both and does not say to what.

The best on average of c in {.05, .1, .2, .3, .5} and epsilon in {.01, .02, .05, .1, .2} over 50,000 random tasks at 10
pulls, 10,000 at 100 and 5,000 at 500, the same for all candidates, none of them held out for evaluation.
"""


def tuned(pulls: int, arms: int) -> tuple[float, float]:
    """UCB1's c and epsilon; those of 100 pulls for trials that nothing was tuned for."""
    return TUNED.get((pulls, arms), (0.2, 0.01))
