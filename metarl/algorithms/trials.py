"""PPO on whole trials of a task, which learners share that adapt through memory: RL², VariBAD, one's own.

Credit crosses the ends of episodes and stops at the end of a trial alone, so that exploring early in a trial is worth
what it brings later in it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.algorithms.memory import MemoryLearner
from metarl.envs.fields import require, require_numbers
from metarl.losses.advantages import discounted_returns
from metarl.losses.ppo import Slope, descend, shares, slope_of
from metarl.losses.return_scale import follow, mean_and_std, scale_of_all
from metarl.losses.trials import goes_on, normalized, trial_advantages, trial_loss
from metarl.networks.normalize import learned, updated
from metarl.networks.recurrent import ActorCritic
from metarl.networks.values import actor_critic
from metarl.types import Description, Metrics, Params, TrajectoryBatch

SCALE_RATE = 0.1  # weight of a new batch in running means and deviations
Loss = Callable[[Params], tuple[Tensor, dict[str, Tensor]]]
"""A loss of parameters, and its terms as metrics."""


@dataclass(frozen=True)
class TrialPPO(MemoryLearner):
    """A learner of one's own adds ``init``, ``actor``, ``act`` and ``update``, which ends in :meth:`improved`. Its
    state is a NamedTuple that has ``meta``, ``optimizer``, ``return_scale`` (as :class:`metarl.algorithms.rl2.RL2State`
    says it), ``num_updates``, and what else it learns. Where its policy sees more than observations, ``credit`` puts
    that in their place (:class:`metarl.algorithms.varibad.VariBAD`), or it has a :meth:`replay` of its own (RL²)."""

    policy: Any
    discount: float = 0.99
    """Discount factor gamma, within a trial."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, within a trial."""
    learning_rate: float = 7e-4
    """Adam's step size of policy and value function."""
    epochs: int = 10
    """Passes over a meta-batch."""
    minibatches: int = 1
    """Gradient steps of a pass, each on its share of the tasks."""
    clip: float = 0.2
    """PPO clip range epsilon: likelihood ratios are clipped to [1 - clip, 1 + clip]."""
    entropy_bonus: float = 0.01
    """Weight of the policy's entropy in the objective."""
    value_weight: float = 0.5
    """Weight of the value function's squared error, in deviations of the return."""
    max_grad_norm: float = 1.0
    """Longer gradients of policy and value function are shortened to this."""
    anneal_updates: int | None = 0
    """Learning rates and entropy bonus fall linearly to zero over this many meta-updates; None: over as many as the run
    has iterations; 0: they stay."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "learning_rate", "clip", "max_grad_norm", above=0)
        require(self, "epochs", "minibatches", at_least=1)
        require(self, "entropy_bonus", "value_weight", at_least=0)
        require(self, "discount", "gae_lambda", at_least=0, at_most=1)
        if self.anneal_updates is not None:
            require(self, "anneal_updates", at_least=0)

    def describe(self) -> Description:
        return Description(type(self).__name__, self.policy, anneal_updates=self.anneal_updates)

    def replay(self, state: Any, batch: TrajectoryBatch) -> ActorCritic:
        """What policy and value function say of each step of whole trials: leaves [task env time ...]."""
        return actor_critic(self.policy, state.meta, batch.obs)

    def pieces(self, state: Any, batch: TrajectoryBatch) -> Iterator[tuple[ActorCritic, TrajectoryBatch]]:
        """What gradient steps on these trials are of, one after the other: here one, of all there is."""
        yield self.replay(state, batch), batch

    @torch.no_grad()
    def credit(self, state: Any, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials, of mean 0 and standard deviation 1 over the meta-batch."""
        reward = batch.reward.where(batch.valid, 0.0)
        advantage, target = self.credited(state, batch, reward, value_lambda=self.gae_lambda)
        return batch._replace(advantage=normalized(advantage, batch.valid), target=target)

    def credited(
        self, state: Any, batch: TrajectoryBatch, reward: Float[Tensor, "task env time"], *, value_lambda: float
    ) -> tuple[Float[Tensor, "task env time"], Float[Tensor, "task env time"]]:
        """Advantages in units of the reward, and the returns of ``value_lambda`` that the values are fitted to."""
        ended = ~goes_on(batch.valid)
        value = self.values(state, batch, discounted_returns(reward, ended, self.discount))
        by_lambda = {
            gae_lambda: trial_advantages(reward, value, ended, discount=self.discount, gae_lambda=gae_lambda)
            for gae_lambda in {self.gae_lambda, value_lambda}
        }
        return by_lambda[self.gae_lambda], value + by_lambda[value_lambda]

    def values(
        self, state: Any, batch: TrajectoryBatch, returns: Float[Tensor, "task env time"]
    ) -> Float[Tensor, "task env time"]:
        """What is expected of trials from each step on, in units of the returns; the value function says by how many
        deviations a step differs from the mean return at its time."""
        scale = follow(state.return_scale, scale_of_all(returns, batch.valid), rate=0.0)
        mean, std = mean_and_std(scale, returns.shape[-1])
        return mean + std * self.replay(state, batch).value

    def remaining(self, state: Any) -> float:
        """The share of learning rate and entropy bonus that annealing has left.

        Raises:
            ValueError: it is to follow a run, whose length is unknown here.
        """
        if self.anneal_updates is None:
            raise ValueError("anneal_updates is None: metarl.train.train fills in its iterations, else use a number")
        return max(0.0, 1 - state.num_updates / self.anneal_updates) if self.anneal_updates else 1.0

    def improved(
        self,
        state: Any,
        batch: TrajectoryBatch,
        generator: torch.Generator | None,
        *,
        beside: Loss | None = None,
        value_weight: float | None = None,
        eps: float = 1e-8,
    ) -> tuple[Any, Metrics]:
        """The state after epochs of clipped policy gradient, value regression and entropy bonus over credited trials,
        and their metrics; the very same state where a gradient is not finite.

        Args:
            generator: draws the shares of every pass; None: the same ones in each.
            beside: what else each gradient step descends.
            value_weight: in place of the learner's own.
            eps: Adam's.
        """
        remaining = self.remaining(state)
        return_scale = follow(state.return_scale, scale_of_all(batch.target, batch.valid), rate=SCALE_RATE)
        mean, std = mean_and_std(return_scale, batch.reward.shape[-1])
        scaled = batch._replace(target=(batch.target - mean) / std)
        weights = {"value_weight": self.value_weight if value_weight is None else value_weight}
        weights["entropy_bonus"] = self.entropy_bonus * remaining

        def slopes(leaves: Params) -> Iterator[Slope]:
            moving = state._replace(meta=state.meta | leaves)
            for part in shares(scaled, self.minibatches, generator):
                for said, steps in self.pieces(moving, part):
                    loss, terms = trial_loss(said, steps, clip=self.clip, **weights)
                    if beside is not None:
                        more, others = beside(moving.meta)
                        loss, terms = loss + more, terms | others
                    yield slope_of(loss, terms, leaves, steps)

        rate = self.learning_rate * remaining
        adam: dict[str, Any] = {"learning_rate": rate, "eps": eps, "max_grad_norm": self.max_grad_norm}
        found = descend(learned(state.meta), state.optimizer, slopes, epochs=self.epochs, **adam)
        if found is None:
            return state, {"train/skipped_updates": 1.0}
        meta = updated(state.meta | found.params, [batch])
        metrics = found.means() | {"train/learning_rate": rate} | self.policy.metrics(meta)
        num_updates = state.num_updates + 1
        moved = {"meta": meta, "optimizer": found.optimizer, "return_scale": return_scale, "num_updates": num_updates}
        return state._replace(**moved), metrics
