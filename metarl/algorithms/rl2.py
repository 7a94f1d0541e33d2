"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al. 2016; Wang et al. 2016).

A trial is several episodes of one task. The policy is fed the last action, reward and end of episode, and remembers
across the episodes of a trial, so adapting is remembering; PPO maximizes the return of the whole trial, which is why
credit crosses the ends of episodes and stops at the end of the trial alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.algorithms.memory import MemoryLearner
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.losses.advantages import discounted_returns
from metarl.losses.optim import OptimizerState
from metarl.losses.ppo import Slope, descend, shares, slope_of
from metarl.losses.return_scale import follow, followed, mean_and_std, scale_of_all
from metarl.losses.trials import before, chunks, goes_on, normalized, piecewise, trial_advantages, trial_loss
from metarl.networks.distributions import DiagGaussian
from metarl.networks.normalize import learned, updated
from metarl.networks.protocol import MemoryPolicy
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline, trial_values
from metarl.types import Description, Experience, Metrics, Params, Previous, TrajectoryBatch

SCALE_RATE = 0.1  # weight of a new batch in the running mean and deviation of returns


class RL2State(NamedTuple):
    meta: Params
    """Weights of the recurrent policy and its value head."""
    optimizer: OptimizerState
    return_scale: Float[Tensor, "time 2"]
    """Mean and standard deviation of the return from each step of a trial on; the value head predicts by how many
    deviations a step differs from the mean, so it need not learn time and scale. Steps not met yet are missing."""
    num_updates: int
    reward_stats: Params
    """Of the rewards that the policy is fed: their ``mean`` and ``std``; empty where they are not standardized."""


class RL2Actor(NamedTuple):
    params: Params
    reward_stats: Params
    memory: Any
    """Leaves [task * env ...]; None before the first step of a trial."""


@dataclass(frozen=True)
class RL2(MemoryLearner):
    policy: MemoryPolicy = field(default_factory=RecurrentPolicy)
    baseline: LinearFeatureBaseline | None = None
    """Value function: None is a head on the memory; the linear one is fitted to each batch."""
    baseline_per: Literal["batch", "trial"] = "batch"
    """What the linear baseline is fitted to: all trials at once, by observation and clock; or each trial alone, by all
    that the policy is fed and the clock."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before the policy is fed them and before they are credited; raw advantages are in
    units of the reward itself."""
    standardize_reward: bool = False
    """Standardize the rewards fed to the policy by their running mean and deviation: the reward differences that
    identify a task can be small compared with the mean reward. Advantages stay as they are."""
    hide_ends: bool = False
    """Feed the policy zeros at the first step of every episode, not of a trial alone: as environments do that reset
    themselves, where the last action, reward and end of an episode are never seen (published Meta-World runs)."""
    discount: float = 0.99
    """Discount factor gamma, within a trial."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, within a trial."""
    advantage_scale: Literal["std", "raw"] = "std"
    """Advantages have mean 0 and standard deviation 1 over the meta-batch; raw: they stay as they are."""
    value_lambda: float = 0.9
    """Lambda of the returns that the value head is fitted to: 1 is the sampled return, without bias and noisy."""
    learning_rate: float = 5e-4
    """Adam's step size."""
    epochs: int = 10
    """Passes over a meta-batch."""
    minibatches: int = 1
    """Gradient steps of a pass, each on its share of the tasks."""
    minibatch_order: Literal["strided", "drawn"] = "strided"
    """Which tasks share a gradient step: every n-th, in each pass the same, or drawn anew for each pass."""
    clip: float = 0.2
    """PPO clip range epsilon: likelihood ratios are clipped to [1 - clip, 1 + clip]."""
    entropy_bonus: float = 0.01
    """Weight of the policy's entropy in the objective."""
    value_weight: float = 0.5
    """Weight of the value head's squared error, in deviations of the return."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this."""
    anneal_updates: int | None = 0
    """Learning rate and entropy bonus fall linearly to zero over this many meta-updates; None: over as many as the run
    has iterations; 0: they stay."""
    bptt_steps: int = 0
    """Steps that gradients flow back through memory, which is carried on; 0: the whole trial."""
    chunk_steps: int = 0
    """Steps of a trial that one gradient step is of, of all tasks of a share, chunk after chunk in order of time; the
    memory that a chunk begins with is what the policy of the gradient step before had. What is left of a trial after
    its last whole chunk is not learned from. 0: a gradient step is of whole trials."""
    chunk_overlap: int = 0
    """Steps at its end that a chunk shares with the next one."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "reward_scale", "learning_rate", "clip", "max_grad_norm", above=0)
        require(self, "epochs", "minibatches", at_least=1)
        require(self, "entropy_bonus", "value_weight", "bptt_steps", "chunk_steps", "chunk_overlap", at_least=0)
        if self.chunk_overlap >= max(1, self.chunk_steps):
            raise BadField(
                f"chunk_overlap is {self.chunk_overlap}: use less than chunk_steps ({self.chunk_steps}), or 0"
            )
        if self.chunk_steps and self.bptt_steps:
            raise BadField(f"bptt_steps is {self.bptt_steps}: use 0 with chunk_steps, which are how far gradients flow")
        if self.anneal_updates is not None:
            require(self, "anneal_updates", at_least=0)
        require(self, "discount", "gae_lambda", "value_lambda", at_least=0, at_most=1)

    def describe(self) -> Description:
        return Description(type(self).__name__, self.policy, anneal_updates=self.anneal_updates)

    def without_adaptation(self) -> "RL2":
        """PPO on all tasks jointly: the same learner without memory."""
        return replace(self, policy=self.policy.without_memory())

    def init(self, spec: EnvSpec, generator: torch.Generator) -> RL2State:
        known = {"mean": 0.0, "std": 1 / self.reward_scale} if self.standardize_reward else {}
        stats = {name: torch.tensor(value, device=generator.device) for name, value in known.items()}
        return RL2State(self.policy.init(spec, generator), {}, torch.zeros(0, 2, device=generator.device), 0, stats)

    def actor(self, state: RL2State, num_tasks: int) -> RL2Actor:
        return RL2Actor(state.meta, state.reward_stats, None)

    @torch.no_grad()
    def act(
        self, actor: RL2Actor, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env act"], Any, RL2Actor]:
        actor, previous = self.beginning(actor, previous)
        ended, reward = previous.terminated | previous.truncated, self._fed(actor.reward_stats, previous.reward)
        inputs = self._inputs(obs, previous.action, reward, ended)
        dist, _, memory = self.policy(actor.params, inputs.flatten(0, 1).unsqueeze(1), actor.memory)
        dist = tree_map(lambda x: x.unflatten(0, obs.shape[:2]).squeeze(2), dist)
        return dist.sample(generator), dist, actor._replace(memory=memory)

    def beginning(self, actor: RL2Actor, previous: Previous) -> tuple[RL2Actor, Previous]:
        """At the first step of a trial the empty memory, and the reward that is fed as 0; later what is given."""
        if actor.memory is not None:
            return actor, previous
        memory = self.policy.empty_memory(previous.reward.numel(), previous.reward.device)
        if actor.reward_stats:
            previous = previous._replace(reward=actor.reward_stats["mean"].expand_as(previous.reward))
        return actor._replace(memory=memory), previous

    @torch.no_grad()
    def credit(self, state: RL2State, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials; targets in units of scaled reward."""
        valid = batch.valid
        reward = self.reward_scale * batch.reward.where(valid, 0.0)
        ended = ~goes_on(valid)
        returns = discounted_returns(reward, ended, self.discount)
        if self.baseline is None:
            scale = follow(state.return_scale, scale_of_all(returns, valid), rate=0.0)
            mean, std = mean_and_std(scale, valid.shape[-1])
            value = mean + std * self.replay(state, batch).value
        else:
            seen = batch.obs if self.baseline_per == "batch" else self._trial_inputs(state, batch)
            all_ranks = (ranks.gathered(x) for x in (seen, returns, valid))
            value = ranks.own(trial_values(self.baseline, *all_ranks, one_fit=self.baseline_per == "batch"))
        advantage, error = (
            trial_advantages(reward, value, ended, discount=self.discount, gae_lambda=gae_lambda)
            for gae_lambda in (self.gae_lambda, self.value_lambda)
        )
        if self.advantage_scale == "raw":
            scaled = advantage.where(valid, 0.0) / self.reward_scale
        else:
            scaled = normalized(advantage, valid)
        return batch._replace(advantage=scaled, target=value + error)

    def update(self, state: RL2State, experience: Experience, generator: torch.Generator) -> tuple[RL2State, Metrics]:
        """Epochs of clipped policy gradient, value regression and entropy bonus over trials."""
        (batch,) = experience.batches
        if self.anneal_updates is None:
            raise ValueError("anneal_updates is None: metarl.train.train fills in its iterations, else use a number")
        remaining = max(0.0, 1 - state.num_updates / self.anneal_updates) if self.anneal_updates else 1.0
        return_scale = follow(state.return_scale, scale_of_all(batch.target, batch.valid), rate=SCALE_RATE)
        drawn = generator if self.minibatch_order == "drawn" else None
        weights = {"value_weight": 0.0 if self.baseline else self.value_weight}
        weights["entropy_bonus"] = self.entropy_bonus * remaining

        def slopes(leaves: Params) -> Iterator[Slope]:
            params, memory = state.meta | leaves, None
            for part in shares(batch, self.minibatches, drawn):
                inputs = self._trial_inputs(state, part)
                for chunk in chunks(inputs, part, return_scale, steps=self.chunk_steps, overlap=self.chunk_overlap):
                    said, memory = self._replay(params, chunk.inputs, None if chunk.begins else memory)
                    loss, terms = trial_loss(said, chunk.batch, chunk.return_scale, clip=self.clip, **weights)
                    yield slope_of(loss, terms, leaves, chunk.batch)

        rate = self.learning_rate * remaining
        adam: dict[str, Any] = {"learning_rate": rate, "eps": 1e-5, "max_grad_norm": self.max_grad_norm}
        found = descend(learned(state.meta), state.optimizer, slopes, epochs=self.epochs, **adam)
        if found is None:
            return state, {"train/skipped_updates": 1.0}
        params = state.meta | found.params
        metrics = found.means() | {"train/learning_rate": rate} | self.policy.metrics(params)
        if "train/policy_std" not in metrics and isinstance(batch.dist, DiagGaussian):
            metrics["train/policy_std"] = batch.dist.log_std.exp()[batch.valid].mean().item()
        stats = followed(state.reward_stats, batch, rate=SCALE_RATE if state.num_updates else 1.0)
        meta = updated(params, experience.batches)
        return RL2State(meta, found.optimizer, return_scale, state.num_updates + 1, stats), metrics

    def replay(self, state: RL2State, batch: TrajectoryBatch) -> ActorCritic:
        """What the policy says of each step of whole trials, as it would have acting: leaves [task env time ...]."""
        return self._replay(state.meta, self._trial_inputs(state, batch), None)[0]

    def _replay(
        self, params: Params, inputs: Float[Tensor, "task env time in"], memory: Any
    ) -> tuple[ActorCritic, Any]:
        """The same of consecutive steps, from a memory on (None: the empty one), and the next chunk's memory."""
        steps = self.chunk_steps - self.chunk_overlap or self.bptt_steps or inputs.shape[2]
        return piecewise(self.policy, params, inputs, memory, steps=steps, cut=not self.chunk_steps)

    def _trial_inputs(self, state: RL2State, batch: TrajectoryBatch) -> Float[Tensor, "task env time in"]:
        """What the policy is fed at each step of whole trials."""
        ended = batch.terminated | batch.truncated
        action, reward, ended = (before(x) for x in (batch.action, self._fed(state.reward_stats, batch.reward), ended))
        return self._inputs(batch.obs, action, reward, ended)

    def _inputs(
        self,
        obs: Float[Tensor, "*batch obs"],
        action: Float[Tensor, "*batch act"],
        reward: Float[Tensor, "*batch"],
        ended: Bool[Tensor, "*batch"],
    ) -> Float[Tensor, "*batch in"]:
        if self.hide_ends:
            action, reward = action.where(~ended.unsqueeze(-1), 0.0), reward.where(~ended, 0.0)
            ended = torch.zeros_like(ended)
        return self.policy.inputs(obs, action, reward, ended)

    def _fed(self, stats: Params, reward: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Rewards as the policy sees them one step later."""
        return (reward - stats["mean"]) / stats["std"] if stats else self.reward_scale * reward
