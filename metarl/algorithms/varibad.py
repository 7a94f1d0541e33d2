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
from metarl.algorithms.trial_replay import empty_trials, episodes_of, observed, some_trials, trials_of, with_trials
from metarl.algorithms.trials import TrialPPO
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.losses.elbo import ELBO
from metarl.losses.optim import OptimizerState
from metarl.losses.ppo import Slope, descend, slope_of
from metarl.networks.belief import BeliefModel, Transitions
from metarl.networks.distributions import of_each
from metarl.networks.mlp import MLP, require_layers
from metarl.networks.protocol import Policy
from metarl.networks.recurrent import ActorCritic
from metarl.networks.values import actor_critic, init_actor_critic
from metarl.replay import Replay
from metarl.types import Experience, Metrics, Params, Previous, TrajectoryBatch


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
class VariBAD(TrialPPO):
    belief: BeliefModel = field(default_factory=BeliefModel)
    policy: Policy = field(default_factory=lambda: MLP((32,), normalize_obs=True))
    elbo: ELBO = field(default_factory=ELBO)
    value_sizes: tuple[int, ...] = (32,)
    """Units of each tanh layer of the value function."""
    see_belief: bool = True
    """Whether the policy sees the belief; without it, it is PPO on all tasks jointly."""
    epochs: int = 2
    minibatches: int = 4
    """Gradient steps of a pass, each on a share of the trials that is drawn anew."""
    clip: float = 0.05
    max_grad_norm: float = 0.5
    joint: bool = False
    """Let PPO's loss change the encoder, too: its gradient steps then are of the ELBO, as well, by one Adam with its
    ``learning_rate``. Else the belief is a given to the policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_layers("value_sizes", self.value_sizes)

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
        meta = init_actor_critic(self.policy, self.value_sizes, spec, num_inputs, generator)
        belief = self.belief.init(spec, generator)
        replay = empty_trials(spec, max(1, self.elbo.replay_episodes), self.belief.decode_task, generator.device)
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
        seen = self._inputs(obs, features)
        dist = of_each(self.policy(params, seen), seen)
        return dist.sample(generator), dist, VariBADActor(params, belief, Memory(hidden, torch.ones_like(begun)))

    @torch.no_grad()
    def credit(self, state: VariBADState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials; the observations become what the policy saw, the belief beside them."""
        return super().credit(state, batch._replace(obs=self._trial_inputs(state.belief, batch)))

    def replay(self, state: VariBADState, batch: TrajectoryBatch) -> ActorCritic:
        """What policy and value function say of credited trials; where learning is joint, of the belief as it is now,
        which may be among what PPO moves."""
        seen = self._trial_inputs(state.belief | state.meta, batch) if self.joint else batch.obs
        return actor_critic(self.policy, state.meta, seen)

    def update(
        self, state: VariBADState, experience: Experience, generator: torch.Generator
    ) -> tuple[VariBADState, Metrics]:
        """PPO's epochs over the trials, then gradient steps of the ELBO over trials of the replay."""
        (batch,) = experience.batches
        everyone, task = tree_map(ranks.gathered, batch), ranks.gathered(experience.task)
        trials, episodes = trials_of(everyone, task), episodes_of(everyone)
        if not (episodes and all(bool(x.isfinite().all()) for x in trials.steps)):
            return state, {"train/skipped_updates": 1.0}
        if kept := self.elbo.replay_episodes:
            state = state._replace(replay=with_trials(state.replay, trials, episodes))

        def elbo(params: Params) -> tuple[Tensor, dict[str, Tensor]]:
            some = some_trials(state.replay, episodes, self.elbo.belief_trials, generator) if kept else trials
            return self.elbo(self.belief, params, some, generator)

        if self.joint:
            both = state._replace(meta=state.meta | state.belief, optimizer=state.belief_optimizer)
            new, metrics = self.improved(both, batch, generator, beside=elbo)
            meta, belief = ({name: new.meta[name] for name in part} for part in (state.meta, state.belief))
            moved = {"optimizer": state.optimizer, "belief_optimizer": new.optimizer}
            return (state if new is both else new._replace(meta=meta, belief=belief, **moved)), metrics
        new, metrics = self.improved(state, batch, generator)
        if new is state or not self.elbo.belief_updates:
            return new, metrics

        def variational(leaves: Params) -> Iterator[Slope]:
            yield slope_of(*elbo(leaves), leaves)

        found = descend(
            state.belief,
            state.belief_optimizer,
            variational,
            epochs=self.elbo.belief_updates,
            learning_rate=self.elbo.belief_learning_rate * self.remaining(state),
            max_grad_norm=self.elbo.belief_max_grad_norm,
        )
        if found is None:
            return state, {"train/skipped_updates": 1.0}
        new = new._replace(belief=found.params, belief_optimizer=found.optimizer)
        return new, found.means() | metrics  # the norm of a gradient is the policy's

    def _trial_inputs(self, belief: Params, batch: TrajectoryBatch) -> Float[Tensor, "task env time in"]:
        """What the policy sees at each step of whole trials."""
        steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
        posterior = self.belief.posteriors(belief, steps, bptt_steps=self.elbo.bptt_steps)
        features = posterior.features()[:, :-1].unflatten(0, batch.reward.shape[:2])
        return self._inputs(observed(batch), features)

    def _inputs(
        self, obs: Float[Tensor, "*batch obs"], features: Float[Tensor, "*batch belief"]
    ) -> Float[Tensor, "*batch in"]:
        return torch.cat([obs, features], dim=-1) if self.see_belief else obs
