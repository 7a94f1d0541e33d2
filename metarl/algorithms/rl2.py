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
from metarl.algorithms.trials import SCALE_RATE, TrialPPO
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.losses.optim import OptimizerState
from metarl.losses.return_scale import followed
from metarl.losses.trials import before, chunks, normalized, piecewise
from metarl.networks.distributions import DiagGaussian
from metarl.networks.protocol import MemoryPolicy
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline, trial_values
from metarl.types import Experience, Metrics, Params, Previous, TrajectoryBatch


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
class RL2(TrialPPO):
    policy: MemoryPolicy = field(default_factory=RecurrentPolicy)
    learning_rate: float = 5e-4
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
    advantage_scale: Literal["std", "raw"] = "std"
    """Advantages have mean 0 and standard deviation 1 over the meta-batch; raw: they stay as they are."""
    value_lambda: float = 0.9
    """Lambda of the returns that the value head is fitted to: 1 is the sampled return, without bias and noisy."""
    minibatch_order: Literal["strided", "drawn"] = "strided"
    """Which tasks share a gradient step: every n-th, in each pass the same, or drawn anew for each pass."""
    bptt_steps: int = 0
    """Steps that gradients flow back through memory, which is carried on; 0: the whole trial."""
    chunk_steps: int = 0
    """Steps of a trial that one gradient step is of, of all tasks of a share, chunk after chunk in order of time; the
    memory that a chunk begins with is what the policy of the gradient step before had. What is left of a trial after
    its last whole chunk is not learned from. 0: a gradient step is of whole trials."""
    chunk_overlap: int = 0
    """Steps at its end that a chunk shares with the next one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "reward_scale", above=0)
        require(self, "value_lambda", at_least=0, at_most=1)
        require(self, "bptt_steps", "chunk_steps", "chunk_overlap", at_least=0)
        if self.chunk_overlap >= max(1, self.chunk_steps):
            raise BadField(
                f"chunk_overlap is {self.chunk_overlap}: use less than chunk_steps ({self.chunk_steps}), or 0"
            )
        if self.chunk_steps and self.bptt_steps:
            raise BadField(f"bptt_steps is {self.bptt_steps}: use 0 with chunk_steps, which are how far gradients flow")

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
        reward = self.reward_scale * batch.reward.where(batch.valid, 0.0)
        advantage, target = self.credited(state, batch, reward, value_lambda=self.value_lambda)
        if self.advantage_scale == "raw":
            scaled = advantage.where(batch.valid, 0.0) / self.reward_scale
        else:
            scaled = normalized(advantage, batch.valid)
        return batch._replace(advantage=scaled, target=target)

    def values(
        self, state: RL2State, batch: TrajectoryBatch, returns: Float[Tensor, "task env time"]
    ) -> Float[Tensor, "task env time"]:
        if self.baseline is None:
            return super().values(state, batch, returns)
        seen = batch.obs if self.baseline_per == "batch" else self._trial_inputs(state, batch)
        all_ranks = (ranks.gathered(x) for x in (seen, returns, batch.valid))
        return ranks.own(trial_values(self.baseline, *all_ranks, one_fit=self.baseline_per == "batch"))

    def update(self, state: RL2State, experience: Experience, generator: torch.Generator) -> tuple[RL2State, Metrics]:
        (batch,) = experience.batches
        drawn = generator if self.minibatch_order == "drawn" else None
        value_weight = 0.0 if self.baseline else self.value_weight
        new, metrics = self.improved(state, batch, drawn, value_weight=value_weight, eps=1e-5)
        if new is state:
            return state, metrics
        if "train/policy_std" not in metrics and isinstance(batch.dist, DiagGaussian):
            metrics["train/policy_std"] = batch.dist.log_std.exp()[batch.valid].mean().item()
        stats = followed(state.reward_stats, batch, rate=SCALE_RATE if state.num_updates else 1.0)
        return new._replace(reward_stats=stats), metrics

    def replay(self, state: RL2State, batch: TrajectoryBatch) -> ActorCritic:
        """What the policy says of each step of whole trials, as it would have acting: leaves [task env time ...]."""
        return self._replay(state.meta, self._trial_inputs(state, batch), None)[0]

    def pieces(self, state: RL2State, batch: TrajectoryBatch) -> Iterator[tuple[ActorCritic, TrajectoryBatch]]:
        inputs, memory = self._trial_inputs(state, batch), None
        for fed, chunk in chunks(inputs, batch, steps=self.chunk_steps, overlap=self.chunk_overlap):
            said, memory = self._replay(state.meta, fed, memory)
            yield said, chunk

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
