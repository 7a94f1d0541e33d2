"""VariBAD: Bayes-adaptive deep RL by meta-learned variational inference (Zintgraf et al. 2020).

A trial is several episodes of one task. An encoder believes something of the task, a posterior over a latent, anew after
every step (:mod:`metarl.networks.belief`); it learns by the ELBO (:mod:`metarl.losses.elbo`), from trials of a replay. The
policy acts on observation and belief, so that it can learn to explore as far as that pays; PPO maximizes the return
of the whole trial, and the belief is a given to it.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils._pytree import tree_map

from metarl import ranks
from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require, require_numbers
from metarl.losses.advantages import discounted_returns, gae, normalize
from metarl.losses.elbo import Trials, negative_elbo
from metarl.losses.optim import OptimizerState
from metarl.losses.return_scale import follow, mean_and_std, scale_of_all
from metarl.losses.trials import goes_on, trial_loss
from metarl.networks.belief import BeliefModel, Transitions
from metarl.networks.distributions import DiagGaussian
from metarl.networks.layers import apply_layers, init_layers
from metarl.networks.mlp import MLP, require_layers
from metarl.networks.normalize import learned, normalized, updated
from metarl.networks.protocol import Policy
from metarl.networks.recurrent import ActorCritic
from metarl.types import Description, Experience, Metrics, Params, Previous, Stage, TrajectoryBatch, trial_stages

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
    replay: Any
    num_updates: int


class VariBADActor(NamedTuple):
    params: Params
    belief: Params
    hidden: Float[Tensor, "world hidden"] | None
    """What the encoder remembers; None before the first step of a trial."""


@dataclass(frozen=True)
class VariBAD:
    belief: BeliefModel = field(default_factory=BeliefModel)
    policy: Policy = field(default_factory=lambda: MLP((32,), normalize_obs=True))
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
    belief_learning_rate: float = 1e-3
    """Adam's step size of encoder and decoders."""
    belief_updates: int = 3
    """Gradient steps of encoder and decoders in a meta-update."""
    belief_trials: int = 25
    """Trials of such a step, drawn from the replay."""
    belief_max_grad_norm: float = 1.0
    """Longer gradients of encoder and decoders are shortened to this."""
    replay_trials: int = 10_000
    """The newest trials that encoder and decoders learn from; 0: those of the meta-batch alone."""
    kl_weight: float = 0.01
    """Weight of the KL divergence from the posterior to the one a step earlier."""
    elbo_prefixes: int = 0
    """Lengths of a trial's beginning that are encoded, drawn; 0: all of them."""
    elbo_decodes: int = 0
    """Steps of a trial that are reconstructed from each, drawn; 0: all of them."""
    bptt_steps: int = 0
    """Steps that gradients flow back through the encoder's memory, which is carried on; 0: the whole trial."""
    policy_gradient_through_belief: bool = False
    """Let PPO's loss change the encoder, too; then each of its gradient steps descends the ELBO's loss, as well."""

    def __post_init__(self) -> None:
        require_numbers(self)
        above = ("learning_rate", "clip", "max_grad_norm", "belief_learning_rate", "belief_max_grad_norm")
        require(self, *above, above=0)
        require(self, "epochs", "minibatches", "belief_trials", at_least=1)
        at_least_0 = ("entropy_bonus", "value_weight", "belief_updates", "replay_trials", "kl_weight", "elbo_prefixes")
        require(self, *at_least_0, "elbo_decodes", "bptt_steps", at_least=0)
        require(self, "discount", "gae_lambda", at_least=0, at_most=1)
        require_layers("value_sizes", self.value_sizes)
        if self.anneal_updates is not None:
            require(self, "anneal_updates", at_least=0)

    @property
    def adapt_steps(self) -> int:
        return 0

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        return trial_stages(trial)

    def describe(self) -> Description:
        return Description(type(self).__name__, self.policy, anneal_updates=self.anneal_updates)

    def require_fits(self, spec: EnvSpec) -> None:
        self.belief.require_fits(spec)
        if spec.obs_shape:
            raise BadField("learner is VariBAD and observations are pictures: use a task whose observations are vectors")

    def without_adaptation(self) -> "VariBAD":
        """PPO on all tasks jointly: the same learner, its policy blind to the belief."""
        return replace(self, see_belief=False, belief_updates=0, replay_trials=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> VariBADState:
        self.require_fits(spec)
        num_inputs = spec.obs_dim + (2 * self.belief.latent_size if self.see_belief else 0)
        meta = self.policy.init(replace(spec, obs_dim=num_inputs), generator)
        value = init_layers("value", (num_inputs, *self.value_sizes, 1), generator)
        value[f"value.weight_{len(self.value_sizes)}"].zero_()
        belief = self.belief.init(spec, generator)
        nothing = torch.zeros(0, 2, device=generator.device)
        return VariBADState(meta | value, belief, {}, {}, nothing, None, 0)

    def actor(self, state: VariBADState, num_tasks: int) -> VariBADActor:
        return VariBADActor(state.meta, state.belief, None)

    def explorer(self, state: VariBADState, num_tasks: int, generator: torch.Generator) -> VariBADActor:
        return self.actor(state, num_tasks)

    @torch.no_grad()
    def act(
        self,
        actor: VariBADActor,
        obs: Float[Tensor, "task env obs"],
        previous: Previous,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "task env act"], Any, VariBADActor]:
        params, belief, hidden = actor
        if hidden is None:
            hidden = self.belief.empty_memory(previous.reward.numel(), obs.device)
        else:  # the first observation alone says nothing yet
            brought = Transitions(obs, previous.action, previous.reward, previous.next_obs)
            steps = Transitions(*(x.flatten(0, 1).unsqueeze(1) for x in brought))
            _, hidden = self.belief.remember(belief, steps, hidden)
        features = self.belief.posterior(belief, hidden).features().unflatten(0, obs.shape[:2])
        dist = self.policy(params, self._inputs(obs, features))
        dist = tree_map(lambda x: x.expand(*obs.shape[:2], x.shape[-1]), dist)
        return dist.sample(generator), dist, VariBADActor(params, belief, hidden)

    @torch.no_grad()
    def credit(self, state: VariBADState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials, of mean 0 and standard deviation 1 over the meta-batch."""
        valid, ended = batch.valid, ~goes_on(batch.valid)
        reward = batch.reward.where(valid, 0.0)
        returns = discounted_returns(reward, ended, self.discount)
        scale = follow(state.return_scale, scale_of_all(returns, valid), rate=0.0)
        mean, std = mean_and_std(scale, valid.shape[-1])
        value = mean + std * self._value(state.meta, self._trial_inputs(state.belief, batch))
        next_value = torch.cat([value[..., 1:], torch.zeros_like(value[..., :1])], dim=-1)
        rates = {"discount": self.discount, "gae_lambda": self.gae_lambda}
        advantage = gae(reward, value, next_value, ended, ended, **rates)
        everywhere, counted = ranks.gathered(advantage), ranks.gathered(valid)
        scaled = ranks.own(normalize(everywhere.flatten(0, 1), counted.flatten(0, 1)).view_as(everywhere))
        return batch._replace(advantage=scaled, target=value + advantage)

    def adapt(self, state: VariBADState, actor: VariBADActor, batch: TrajectoryBatch, *, scale: float = 1.0) -> Any:
        raise NotImplementedError("VariBAD adapts as it acts: it has no inner step")

    def update(
        self, state: VariBADState, experience: Experience, generator: torch.Generator
    ) -> tuple[VariBADState, Metrics]:
        """PPO's epochs over the trials, then gradient steps of the ELBO over trials of the replay."""
        (own,) = experience.batches
        batch, task = tree_map(ranks.gathered, own), ranks.gathered(experience.task)  # alike in every rank, all below
        replay = self._remembered(state.replay, trials_of(batch, task))
        scale = follow(state.return_scale, scale_of_all(own.target, own.valid), rate=SCALE_RATE)
        if self.anneal_updates is None:
            raise ValueError("anneal_updates is None: metarl.train.train fills in its iterations, else use a number")
        remaining = max(0.0, 1 - state.num_updates / self.anneal_updates) if self.anneal_updates else 1.0
        policy = Descent(state.meta, state.optimizer, self.learning_rate * remaining, self.max_grad_norm)
        belief = Descent(
            state.belief, state.belief_optimizer, self.belief_learning_rate * remaining, self.belief_max_grad_norm
        )
        means = Means()
        worlds = tree_map(lambda x: x.flatten(0, 1).unsqueeze(1), batch)
        inputs = self._trial_inputs(state.belief, worlds) if not self.policy_gradient_through_belief else None
        count = len(worlds.reward)
        for _ in range(self.epochs):
            order = torch.randperm(count, generator=generator, device=worlds.reward.device)
            for share in order.chunk(min(self.minibatches, count)):
                part = tree_map(lambda x: x[share], worlds)  # noqa: B023
                seen = self._trial_inputs(belief.params, part) if inputs is None else inputs[share]
                loss, terms = self._policy_loss(policy.params, seen, part, scale, self.entropy_bonus * remaining)
                if inputs is None:
                    more, said = self._belief_loss(belief.params, replay, generator)
                    loss, terms = loss + more, terms | said
                if not descend(loss, policy, *([belief] if inputs is None else [])):
                    return state, {"train/skipped_updates": 1.0}
                means.add(terms | {"train/meta_gradient_norm": policy.norm})
        for _ in range(0 if inputs is None else self.belief_updates):
            loss, terms = self._belief_loss(belief.params, replay, generator)
            if not descend(loss, belief):
                return state, {"train/skipped_updates": 1.0}
            means.add(terms)
        metrics = means.metrics() | {"train/learning_rate": self.learning_rate * remaining}
        metrics |= self.policy.metrics(policy.params)
        seen_now = self._trial_inputs(state.belief, own) if inputs is None else ranks.own(inputs.view(*batch.reward.shape, -1))
        meta = updated(policy.detached(), [own._replace(obs=seen_now)])
        kept = replay if self.replay_trials else None
        number = state.num_updates + 1
        return VariBADState(
            meta, belief.detached(), policy.adam.state_dict(), belief.adam.state_dict(), scale, kept, number
        ), metrics

    def _remembered(self, replay: Any, new: Trials) -> Trials:
        if replay is None:
            return new
        return tree_map(lambda old, x: torch.cat([old, x])[-self.replay_trials :], replay, new)

    def _policy_loss(
        self,
        params: Params,
        inputs: Float[Tensor, "trial 1 time in"],
        batch: TrajectoryBatch,
        scale: Float[Tensor, "known 2"],
        entropy_bonus: float,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        dist = self.policy(params, inputs)
        said = ActorCritic(dist, self._value(params, inputs), None)
        weights = {"value_weight": self.value_weight, "entropy_bonus": entropy_bonus}
        return trial_loss(said, batch, scale, clip=self.clip, **weights)

    def _belief_loss(
        self, params: Params, replay: Trials, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """-ELBO of some trials of the replay, its KL term weighted."""
        count = len(replay.length)
        some = torch.randperm(count, generator=generator, device=replay.length.device)[: self.belief_trials]
        drawn = tree_map(lambda x: x[some], replay)
        how = {"prefixes": self.elbo_prefixes, "decodes": self.elbo_decodes, "bptt_steps": self.bptt_steps}
        terms = negative_elbo(self.belief, params, drawn, generator, **how)
        loss = terms.reward + terms.state + terms.task + self.kl_weight * terms.kl
        return loss, {f"train/belief_{name}": term.detach() for name, term in terms._asdict().items()}

    def _trial_inputs(self, belief: Params, batch: TrajectoryBatch) -> Float[Tensor, "task env time in"]:
        """What the policy sees at each step of whole trials."""
        steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.policy_gradient_through_belief):
            posterior = self.belief.posteriors(belief, steps, bptt_steps=self.bptt_steps)
        features = posterior.features()[:, :-1].unflatten(0, batch.reward.shape[:2])
        return self._inputs(batch.obs, features)

    def _inputs(
        self, obs: Float[Tensor, "*batch obs"], features: Float[Tensor, "*batch belief"]
    ) -> Float[Tensor, "*batch in"]:
        return torch.cat([obs, features], dim=-1) if self.see_belief else obs

    def _value(self, params: Params, inputs: Float[Tensor, "*batch n in"]) -> Float[Tensor, "*batch n"]:
        """By how many deviations a step differs from the mean return at its time."""
        return apply_layers(params, "value", normalized(params, inputs), torch.tanh).squeeze(-1)


class Descent:
    """Parameters on their way down, by Adam; what they started from stays as it is."""

    def __init__(self, params: Params, optimizer: OptimizerState, learning_rate: float, max_norm: float) -> None:
        self.leaves = {name: x.clone().requires_grad_() for name, x in learned(params).items()}
        self.params = params | self.leaves
        self.adam = torch.optim.Adam(self.leaves.values(), lr=learning_rate, eps=1e-8)
        if optimizer:
            self.adam.load_state_dict(copy.deepcopy(optimizer))  # Adam works in place
        self.adam.param_groups[0]["lr"] = learning_rate
        self.max_norm, self.norm = max_norm, torch.zeros(())

    def detached(self) -> Params:
        return {name: x.detach() for name, x in self.params.items()}


def descend(loss: Float[Tensor, ""], *parts: Descent) -> bool:
    """A step of each part; False, and none is taken, where a gradient is not finite."""
    for part in parts:
        part.adam.zero_grad()
    loss.backward()
    for part in parts:
        part.norm = torch.nn.utils.clip_grad_norm_(part.leaves.values(), part.max_norm)
    if not all(bool(part.norm.isfinite()) for part in parts):
        return False
    for part in parts:
        part.adam.step()
    return True


class Means:
    """Means of metrics that come one by one."""

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            self._sums.setdefault(name, []).append(term.item())

    def metrics(self) -> Metrics:
        return {name: sum(values) / len(values) for name, values in self._sums.items()}


def trials_of(batch: TrajectoryBatch, task: Float[Tensor, "task ..."]) -> Trials:
    """The trials of a meta-batch, one a world, those without a valid step left out."""
    length = batch.valid.sum(-1).flatten()
    steps = Transitions(*(getattr(batch, name).flatten(0, 1) for name in Transitions._fields))
    tasks = task.flatten(1).repeat_interleave(batch.reward.shape[1], dim=0)
    return tree_map(lambda x: x[length > 0], Trials(steps, length, tasks))
