"""VariBAD: Bayes-adaptive deep RL by meta-learned variational inference (Zintgraf et al. 2020).

A trial is several episodes of one task. After every step an encoder says anew what it believes of the task, a posterior
over a latent (:mod:`metarl.networks.belief`); it learns by the ELBO (:mod:`metarl.losses.elbo`), from trials of a
replay. The policy acts on observation and belief, so that it can learn to explore as far as that pays; PPO maximizes
the return of the whole trial, and the belief is a given to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.algorithms.memory import MemoryLearner
from metarl.algorithms.trial_replay import empty_trials, episodes_of, some_trials, trials_of, with_trials
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.losses.advantages import discounted_returns
from metarl.losses.elbo import ELBO
from metarl.losses.optim import OptimizerState
from metarl.losses.ppo import Slope, descend, shares, slope_of
from metarl.losses.return_scale import follow, mean_and_std, scale_of_all
from metarl.losses.trials import goes_on, trial_advantages, trial_loss
from metarl.losses.trials import normalized as standardized
from metarl.networks.belief import BeliefModel, Transitions
from metarl.networks.layers import apply_layers, init_layers
from metarl.networks.mlp import MLP, require_layers
from metarl.networks.normalize import learned, normalized, updated
from metarl.networks.protocol import Policy
from metarl.networks.recurrent import ActorCritic
from metarl.replay import Replay
from metarl.types import Description, Experience, Metrics, Params, Previous, TrajectoryBatch

SCALE_RATE = 0.1  # weight of a new batch in the running mean and deviation of returns


class VariBADState(NamedTuple):
    meta: Params
    """Weights of policy and value function."""
    belief: Params
    """Weights of encoder and decoders."""
    optimizer: OptimizerState
    belief_optimizer: OptimizerState
    return_scale: Float[Tensor, "time 2"]
    """Mean and standard deviation of the return from each step of a trial on, as in RL²."""
    replay: Replay
    num_updates: int


class VariBADActor(NamedTuple):
    params: Params
    belief: Params
    memory: "Memory | None"
    """None before the first step of a trial."""


class Memory(NamedTuple):
    hidden: Float[Tensor, "world hidden"]
    """Of the encoder."""
    begun: Float[Tensor, "world 1"]
    """1 after a step, which the next one encodes, and 0 before any."""


@dataclass(frozen=True)
class VariBAD(MemoryLearner):
    belief: BeliefModel = field(default_factory=BeliefModel)
    policy: Policy = field(default_factory=lambda: MLP((32,), normalize_obs=True))
    elbo: ELBO = field(default_factory=ELBO)
    value_sizes: tuple[int, ...] = (32,)
    """Units of each tanh layer of the value function."""
    see_belief: bool = True
    """Whether the policy sees the belief; without it, it is PPO on all tasks jointly."""
    discount: float = 0.99
    """Discount factor gamma, within a trial."""
    gae_lambda: float = 0.95
    """Lambda of generalized advantage estimation, within a trial."""
    learning_rate: float = 7e-4
    """Adam's step size of policy and value function."""
    epochs: int = 2
    """Passes over a meta-batch."""
    minibatches: int = 4
    """Gradient steps of a pass, each on a share of the trials that is drawn anew."""
    clip: float = 0.05
    """PPO clip range epsilon: likelihood ratios are clipped to [1 - clip, 1 + clip]."""
    entropy_bonus: float = 0.01
    """Weight of the policy's entropy in the objective."""
    value_weight: float = 0.5
    """Weight of the value function's squared error, in deviations of the return."""
    max_grad_norm: float = 0.5
    """Longer gradients of policy and value function are shortened to this."""
    anneal_updates: int | None = 0
    """Learning rates and entropy bonus fall linearly to zero over this many meta-updates; None: over as many as the
    run has iterations; 0: they stay."""
    joint: bool = False
    """Let PPO's loss change the encoder, too: its gradient steps then are of the ELBO, as well, by one Adam with its
    ``learning_rate``. Else the belief is a given to the policy."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "learning_rate", "clip", "max_grad_norm", above=0)
        require(self, "epochs", "minibatches", at_least=1)
        require(self, "entropy_bonus", "value_weight", at_least=0)
        require(self, "discount", "gae_lambda", at_least=0, at_most=1)
        require_layers("value_sizes", self.value_sizes)
        if self.anneal_updates is not None:
            require(self, "anneal_updates", at_least=0)

    def describe(self) -> Description:
        return Description(type(self).__name__, self.policy, anneal_updates=self.anneal_updates)

    def require_fits(self, spec: EnvSpec) -> None:
        self.belief.require_fits(spec)
        if spec.obs_shape:
            raise BadField("learner is VariBAD and observations are pictures: use a task that observes vectors")

    def without_adaptation(self) -> "VariBAD":
        """PPO on all tasks jointly: the same learner, its policy blind to the belief."""
        elbo = replace(self.elbo, belief_updates=0, replay_episodes=0)
        return replace(self, elbo=elbo, see_belief=False, joint=False)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> VariBADState:
        self.require_fits(spec)
        num_inputs = spec.obs_dim + (2 * self.belief.latent_size if self.see_belief else 0)
        meta = self.policy.init(replace(spec, obs_dim=num_inputs), generator)
        value = init_layers("value", (num_inputs, *self.value_sizes, 1), generator)
        value[f"value.weight_{len(self.value_sizes)}"].zero_()
        belief = self.belief.init(spec, generator)
        replay = empty_trials(spec, max(1, self.elbo.replay_episodes), self.belief.decode_task, generator.device)
        meta = learned(meta) | value | meta  # the statistics behind what has moments
        return VariBADState(meta, belief, {}, {}, torch.zeros(0, 2, device=generator.device), replay, 0)

    def actor(self, state: VariBADState, num_tasks: int) -> VariBADActor:
        return VariBADActor(state.meta, state.belief, None)

    def beginning(self, actor: VariBADActor, previous: Previous) -> tuple[VariBADActor, Previous]:
        """At the first step of a trial the empty memory; later what is given."""
        if actor.memory is not None:
            return actor, previous
        hidden = self.belief.empty_memory(previous.reward.numel(), previous.reward.device)
        return actor._replace(memory=Memory(hidden, hidden.new_zeros(len(hidden), 1))), previous

    @torch.no_grad()
    def act(
        self, actor: VariBADActor, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env act"], Any, VariBADActor]:
        params, belief, (hidden, begun) = self.beginning(actor, previous)[0]  # type: ignore[misc]
        brought = Transitions(obs, previous.action, previous.reward, previous.next_obs)
        steps = Transitions(*(x.flatten(0, 1).unsqueeze(1) for x in brought))
        hidden = hidden.lerp(self.belief.remember(belief, steps, hidden)[1], begun)
        features = self.belief.posterior(belief, hidden).features().unflatten(0, obs.shape[:2])
        dist = self._dist(params, self._inputs(obs, features))
        return dist.sample(generator), dist, VariBADActor(params, belief, Memory(hidden, torch.ones_like(begun)))

    @torch.no_grad()
    def credit(self, state: VariBADState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials, of mean 0 and standard deviation 1 over the meta-batch."""
        valid, ended = batch.valid, ~goes_on(batch.valid)
        reward = batch.reward.where(valid, 0.0)
        returns = discounted_returns(reward, ended, self.discount)
        scale = follow(state.return_scale, scale_of_all(returns, valid), rate=0.0)
        mean, std = mean_and_std(scale, valid.shape[-1])
        value = mean + std * self._value(state.meta, self._trial_inputs(state.belief, batch))
        advantage = trial_advantages(reward, value, ended, discount=self.discount, gae_lambda=self.gae_lambda)
        return batch._replace(advantage=standardized(advantage, valid), target=value + advantage)

    def update(
        self, state: VariBADState, experience: Experience, generator: torch.Generator
    ) -> tuple[VariBADState, Metrics]:
        """PPO's epochs over the trials, then gradient steps of the ELBO over trials of the replay."""
        (batch,) = experience.batches
        if self.anneal_updates is None:
            raise ValueError("anneal_updates is None: metarl.train.train fills in its iterations, else use a number")
        everyone, task = tree_map(ranks.gathered, batch), ranks.gathered(experience.task)
        trials, episodes = trials_of(everyone, task), episodes_of(everyone)
        if not (episodes and all(bool(x.isfinite().all()) for x in trials.steps)):
            return state, {"train/skipped_updates": 1.0}
        if kept := self.elbo.replay_episodes:
            state = state._replace(replay=with_trials(state.replay, trials, episodes))
        remaining = max(0.0, 1 - state.num_updates / self.anneal_updates) if self.anneal_updates else 1.0
        scale = follow(state.return_scale, scale_of_all(batch.target, batch.valid), rate=SCALE_RATE)
        seen = batch._replace(obs=self._trial_inputs(state.belief, batch).detach())
        weights = {"value_weight": self.value_weight, "entropy_bonus": self.entropy_bonus * remaining}

        def elbo(leaves: Params) -> tuple[Tensor, dict[str, Tensor]]:
            some = some_trials(state.replay, episodes, self.elbo.belief_trials, generator) if kept else trials
            return self.elbo(self.belief, state.belief | leaves, some, generator)

        def ppo(leaves: Params) -> Iterator[Slope]:
            params, belief = state.meta | leaves, state.belief | leaves
            for part in shares(batch if self.joint else seen, self.minibatches, generator):
                fed = self._trial_inputs(belief, part) if self.joint else part.obs
                said = ActorCritic(self._dist(params, fed), self._value(params, fed), None)
                loss, terms = trial_loss(said, part, scale, clip=self.clip, **weights)
                if self.joint:
                    more, others = elbo(leaves)
                    loss, terms = loss + more, terms | others
                yield slope_of(loss, terms, leaves, part)

        def variational(leaves: Params) -> Iterator[Slope]:  # alike in every rank, as the replay is
            loss, terms = elbo(leaves)
            pieces = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
            yield Slope(dict(zip(leaves, pieces, strict=True)), {name: term.item() for name, term in terms.items()})

        moving = learned(state.meta) | (state.belief if self.joint else {})
        optimizer = "belief_optimizer" if self.joint else "optimizer"
        adam: dict[str, Any] = {"learning_rate": self.learning_rate * remaining, "max_grad_norm": self.max_grad_norm}
        moved = descend(moving, getattr(state, optimizer), ppo, epochs=self.epochs, **adam)
        if moved is None:
            return state, {"train/skipped_updates": 1.0}
        metrics = moved.means() | {"train/learning_rate": adam["learning_rate"]}
        meta = updated(state.meta | {name: moved.params[name] for name in learned(state.meta)}, [seen])
        new = state._replace(meta=meta, return_scale=scale, num_updates=state.num_updates + 1)
        new = new._replace(**dict[str, Any]({optimizer: moved.optimizer}))
        if self.joint:
            new = new._replace(belief={name: moved.params[name] for name in state.belief})
        elif self.elbo.belief_updates:
            rate, longest = self.elbo.belief_learning_rate * remaining, self.elbo.belief_max_grad_norm
            adam = {"learning_rate": rate, "max_grad_norm": longest}
            found = descend(state.belief, state.belief_optimizer, variational, epochs=self.elbo.belief_updates, **adam)
            if found is None:
                return state, {"train/skipped_updates": 1.0}
            new = new._replace(belief=found.params, belief_optimizer=found.optimizer)
            metrics = found.means() | metrics  # the norm of a gradient is the policy's
        return new, metrics | self.policy.metrics(meta)

    def _trial_inputs(self, belief: Params, batch: TrajectoryBatch) -> Float[Tensor, "task env time in"]:
        """What the policy sees at each step of whole trials."""
        steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.joint):
            posterior = self.belief.posteriors(belief, steps, bptt_steps=self.elbo.bptt_steps)
        features = posterior.features()[:, :-1].unflatten(0, batch.reward.shape[:2])
        return self._inputs(batch.obs, features)

    def _inputs(
        self, obs: Float[Tensor, "*batch obs"], features: Float[Tensor, "*batch belief"]
    ) -> Float[Tensor, "*batch in"]:
        return torch.cat([obs, features], dim=-1) if self.see_belief else obs

    def _dist(self, params: Params, inputs: Float[Tensor, "*batch in"]) -> Any:
        """The distribution of the action, its leaves in full."""
        return tree_map(lambda x: x.expand(*inputs.shape[:-1], x.shape[-1]), self.policy(params, inputs))

    def _value(self, params: Params, inputs: Float[Tensor, "*batch n in"]) -> Float[Tensor, "*batch n"]:
        """By how many deviations a step differs from the mean return at its time."""
        return apply_layers(params, "value", normalized(params, inputs), torch.tanh).squeeze(-1)
