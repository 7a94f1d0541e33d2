"""RL²: fast reinforcement learning via slow reinforcement learning (Duan et al. 2016; Wang et al. 2016).

A trial is several episodes of one task. The policy is fed the last action, reward and end of episode, and remembers
across the episodes of a trial, so adapting is remembering; PPO maximizes the return of the whole trial, which is why
credit crosses the ends of episodes and stops at the end of the trial alone.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.envs.api import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.losses.advantages import discounted_returns, gae, normalize
from metarl.losses.optim import OptimizerState
from metarl.losses.policy_gradient import clipped_surrogate_loss, mean_over
from metarl.losses.scales import follow, mean_and_std, mean_and_std_of, scale_of_all, share_of
from metarl.networks.distributions import mean_std
from metarl.networks.recurrent import ActorCritic, RecurrentPolicy
from metarl.networks.values import LinearFeatureBaseline
from metarl.types import Metrics, Params, Previous, TrajectoryBatch

SCALE_RATE = 0.1  # weight of a new batch in the running mean and deviation of returns
REWARD = "reward_mean_and_std"  # among the weights, but not learned by gradient


class RL2State(NamedTuple):
    meta: Params
    """Weights of the recurrent policy and its value head."""
    optimizer: OptimizerState
    return_scale: Float[Tensor, "time 2"]
    """Mean and standard deviation of the return from each step of a trial on; the value head predicts by how many
    deviations a step differs from the mean, so it need not learn time and scale. Steps not met yet are missing."""
    num_updates: int


class RL2Actor(NamedTuple):
    params: Params
    memory: Any
    """Leaves [task * env ...]; None before the first step of a trial."""


@dataclass(frozen=True)
class RL2:
    policy: RecurrentPolicy = field(default_factory=RecurrentPolicy)
    baseline: LinearFeatureBaseline | None = None
    """Value function: None is a head on the memory; the linear one is fitted to each batch, all tasks at once."""
    reward_scale: float = 1.0
    """Rewards are multiplied by this before the policy is fed them and before they are credited."""
    standardize_reward: bool = False
    """Standardize the rewards fed to the policy by their running mean and deviation: the reward differences that
    identify a task can be small compared with the mean reward. Advantages, normalized anyway, stay as they are."""
    discount: float = 0.99
    """Discount factor gamma, within a trial."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, within a trial. Advantages are normalized over the meta-batch."""
    value_lambda: float = 0.9
    """Lambda of the returns that the value head is fitted to: 1 is the sampled return, without bias and noisy."""
    learning_rate: float = 5e-4
    """Adam's step size."""
    epochs: int = 10
    """Passes over a meta-batch."""
    minibatches: int = 1
    """Gradient steps of a pass, each on its share of the tasks."""
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

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "reward_scale", "learning_rate", "clip", "max_grad_norm", above=0)
        require(self, "epochs", "minibatches", at_least=1)
        require(self, "entropy_bonus", "value_weight", "bptt_steps", at_least=0)
        if self.anneal_updates is not None:
            require(self, "anneal_updates", at_least=0)
        require(self, "discount", "gae_lambda", "value_lambda", at_least=0, at_most=1)

    @property
    def adapt_steps(self) -> int:
        return 0

    @property
    def remembers(self) -> bool:
        return True

    def without_adaptation(self) -> "RL2":
        """PPO on all tasks jointly: the same learner without memory."""
        return replace(self, policy=replace(self.policy, memory="none"))

    def init(self, spec: EnvSpec, generator: torch.Generator) -> RL2State:
        meta = self.policy.init(spec, generator)
        if self.standardize_reward:
            meta[REWARD] = torch.tensor([0.0, 1 / self.reward_scale], device=generator.device)
        return RL2State(meta, {}, torch.zeros(0, 2, device=generator.device), 0)

    def actor(self, state: RL2State, num_tasks: int) -> RL2Actor:
        return RL2Actor(state.meta, None)

    def explorer(self, state: RL2State, num_tasks: int) -> RL2Actor:
        return self.actor(state, num_tasks)

    @torch.no_grad()
    def act(
        self,
        actor: RL2Actor,
        obs: Float[Tensor, "task env obs"],
        previous: Previous,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "task env act"], Any, RL2Actor]:
        ended = previous.terminated | previous.truncated
        begins, memory = actor.memory is None, actor.memory
        reward = previous.reward if begins else self._fed(actor.params, previous.reward)
        inputs = self.policy.inputs(obs, previous.action, reward, ended)
        if begins:
            memory = self.policy.empty_memory(inputs.shape[:2].numel(), obs.device)
        dist, _, memory = self.policy(actor.params, inputs.flatten(0, 1).unsqueeze(1), memory)
        dist = tree_map(lambda x: x.unflatten(0, obs.shape[:2]).squeeze(2), dist)
        return dist.sample(generator), dist, RL2Actor(actor.params, memory)

    @torch.no_grad()
    def credit(self, state: RL2State, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials, normalized over the meta-batch; targets in units of scaled reward."""
        valid = batch.valid
        reward = self.reward_scale * batch.reward.where(valid, 0.0)
        ended = ~later(valid)
        returns = discounted_returns(reward, ended, self.discount)
        if self.baseline is None:
            scale = follow(state.return_scale, scale_of_all(returns, valid), rate=0.0)
            mean, std = mean_and_std(scale, valid.shape[-1])
            value = mean + std * self.replay(state.meta, batch).value
        else:
            value = self._linear_value(self.baseline, batch, returns)
        next_value = torch.cat([value[..., 1:], torch.zeros_like(value[..., :1])], dim=-1)
        advantage, error = (
            gae(reward, value, next_value, ended, ended, discount=self.discount, gae_lambda=gae_lambda)
            for gae_lambda in (self.gae_lambda, self.value_lambda)
        )
        everywhere, counted = ranks.gathered(advantage), ranks.gathered(valid)
        normalized = normalize(everywhere.flatten(0, 1), counted.flatten(0, 1)).view_as(everywhere)
        return batch._replace(advantage=ranks.own(normalized), target=value + error)

    def adapt(self, state: RL2State, actor: RL2Actor, batch: TrajectoryBatch, *, scale: float = 1.0) -> RL2Actor:
        raise NotImplementedError("RL2 adapts as it acts: it has no inner step")

    def update(self, state: RL2State, batches: list[TrajectoryBatch]) -> tuple[RL2State, Metrics]:
        """Epochs of clipped policy gradient, value regression and entropy bonus over whole trials."""
        (batch,) = batches
        if self.anneal_updates is None:
            raise ValueError("anneal_updates is None: metarl.train.train fills in its iterations, else use a number")
        remaining = max(0.0, 1 - state.num_updates / self.anneal_updates) if self.anneal_updates else 1.0
        return_scale = follow(state.return_scale, scale_of_all(batch.target, batch.valid), rate=SCALE_RATE)
        leaves = {name: value.clone().requires_grad_() for name, value in state.meta.items() if name != REWARD}
        params = state.meta | leaves
        adam = torch.optim.Adam(leaves.values(), lr=self.learning_rate, eps=1e-5)
        if state.optimizer:
            adam.load_state_dict(copy.deepcopy(state.optimizer))  # Adam works in place
        adam.param_groups[0]["lr"] = self.learning_rate * remaining
        sums: dict[str, float] = {}
        count = 0
        for _ in range(self.epochs):
            for part in self._minibatches(batch):
                loss, terms = self._loss(params, part, return_scale, self.entropy_bonus * remaining)
                share = share_of(part.valid)
                adam.zero_grad()
                (loss if share is None else share * loss).backward()
                if share is not None:
                    self._sum_over_ranks(leaves)
                    terms = {name: ranks.total(share * term) for name, term in terms.items()}
                norm = torch.nn.utils.clip_grad_norm_(leaves.values(), self.max_grad_norm)
                if not norm.isfinite():
                    return state, {"train/skipped_updates": 1.0}
                adam.step()
                terms["train/meta_gradient_norm"] = norm
                count += 1
                for name, term in terms.items():
                    sums[name] = sums.get(name, 0.0) + term.item()
        metrics = {name: value / count for name, value in sums.items()}
        metrics["train/learning_rate"] = self.learning_rate * remaining
        if "log_std" in leaves:
            metrics["train/policy_std"] = mean_std(leaves, self.policy.min_std)
        updated = {name: leaf.detach() for name, leaf in params.items()}
        if self.standardize_reward:
            rate = SCALE_RATE if state.num_updates else 1.0
            updated[REWARD] = updated[REWARD].lerp(
                mean_and_std_of(ranks.gathered(batch.reward), ranks.gathered(batch.valid)), rate
            )
        return RL2State(updated, adam.state_dict(), return_scale, state.num_updates + 1), metrics

    def replay(self, params: Params, batch: TrajectoryBatch) -> ActorCritic:
        """What ``params`` say of each step of whole trials, as they would have acting: leaves [task env time ...]."""
        ended = batch.terminated | batch.truncated
        action, reward, ended = (before(x) for x in (batch.action, self._fed(params, batch.reward), ended))
        inputs = self.policy.inputs(batch.obs, action, reward, ended).flatten(0, 1)
        memory = self.policy.empty_memory(len(inputs), inputs.device)
        pieces = []
        for piece in inputs.split(self.bptt_steps or inputs.shape[1], dim=1):
            dist, value, memory = self.policy(params, piece, tree_map(Tensor.detach, memory))
            pieces.append((dist, value))
        dist, value = tree_map(lambda *x: torch.cat(x, dim=1).unflatten(0, batch.reward.shape[:2]), *pieces)
        return ActorCritic(dist, value, memory)

    def _fed(self, params: Params, reward: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Rewards as the policy sees them one step later."""
        if REWARD not in params:
            return self.reward_scale * reward
        mean, std = params[REWARD]
        return (reward - mean) / std

    def _loss(
        self, params: Params, batch: TrajectoryBatch, return_scale: Float[Tensor, "time 2"], entropy_bonus: float
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        dist, value, _ = self.replay(params, batch)
        log_prob = dist.log_prob(batch.action)
        surrogate = clipped_surrogate_loss(log_prob, batch, self.clip)
        entropy = mean_over(dist.entropy(), batch.valid)
        mean, std = mean_and_std(return_scale, batch.reward.shape[-1])
        value_loss = 0.5 * mean_over((value - (batch.target - mean) / std).square(), batch.valid)
        value_weight = self.value_weight if self.baseline is None else 0.0
        loss = surrogate + value_weight * value_loss - entropy_bonus * entropy
        log_ratio = (log_prob - batch.log_prob).detach()
        terms = {
            "train/loss": loss.detach(),
            "train/value_loss": value_loss.detach(),
            "train/entropy": entropy.detach(),
            "train/kl": mean_over(log_ratio.exp() - 1 - log_ratio, batch.valid),
            "train/clip_fraction": mean_over((log_ratio.exp_().sub_(1).abs_() > self.clip).float(), batch.valid),
        }
        return loss, terms

    def _linear_value(
        self, baseline: LinearFeatureBaseline, batch: TrajectoryBatch, returns: Float[Tensor, "task env time"]
    ) -> Float[Tensor, "task env time"]:
        """One fit for the meta-batch: fitted to its own few trials, a task's baseline would swallow their credit."""
        obs, returns, valid = (ranks.gathered(x) for x in (batch.obs, returns, batch.valid))
        num_tasks = len(returns)
        clock = torch.arange(returns.shape[-1], device=returns.device).expand(returns.shape)  # of the trial
        obs, clock, returns, valid = (x.flatten(0, 1) for x in (obs, clock, returns, valid))
        features = baseline.features(obs, clock).where(valid.unsqueeze(-1), 0.0)
        value = baseline.predict(baseline.fit(features, returns, valid), features)
        return ranks.own(value.unflatten(0, (num_tasks, -1)))

    @staticmethod
    def _sum_over_ranks(leaves: Params) -> None:
        gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
        for name, gradient in ranks.total_params(gradients).items():
            leaves[name].grad = gradient

    def _minibatches(self, batch: TrajectoryBatch) -> Iterator[TrajectoryBatch]:
        """Shares of the tasks, each with every n-th: tasks of one kind may lie side by side."""
        num_shares = min(self.minibatches, batch.reward.shape[0])
        for share in range(num_shares):
            yield tree_map(lambda x: x[share::num_shares], batch)  # noqa: B023


def later(valid: Bool[Tensor, "*batch time"]) -> Bool[Tensor, "*batch time"]:
    """Whether a valid step follows this one: whether the trial goes on."""
    from_here = valid.flip(-1).cumsum(-1).flip(-1)
    return from_here > valid.long()


def before(x: Shaped[Tensor, "task env time ..."]) -> Tensor:
    """The value one step earlier, zeros at the first step."""
    return torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], dim=2)
