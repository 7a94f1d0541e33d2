"""A learner of one's own, complete in this file: the belief about a task by Bayes' rule on a learned reward model.

In many task distributions the reward alone says which task it is. A network learns to predict it from what was seen of
a step and the task's parameters, which training knows; in a test, candidates that would have earned what was earned are
likely (:mod:`metarl.networks.reward_model`). The policy sees mean and deviation of that belief beside the observation,
PPO trains it over whole trials. Task parameters are used in training alone, as by Humplik et al. 2019.

    metarl train ml1 --env push-v3 --learner rewardbelief --preset push --code experiments/reward_belief.py --name push
    metarl evaluate runs/push --code experiments/reward_belief.py
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._pytree import tree_map

from metarl import Experiment, envs, presets, ranks, register
from metarl.algorithms.memory import MemoryLearner
from metarl.algorithms.trial_replay import empty_trials, episodes_of, some_trials, trials_of, valid_of, with_trials
from metarl.envs import EnvSpec
from metarl.envs.fields import require, require_numbers
from metarl.losses.advantages import discounted_returns
from metarl.losses.optim import OptimizerState
from metarl.losses.ppo import Slope, descend, shares, slope_of
from metarl.losses.return_scale import follow, mean_and_std, mean_and_std_of, scale_of_all
from metarl.losses.trials import goes_on, normalized, trial_advantages, trial_loss
from metarl.networks.layers import apply_layers, init_layers
from metarl.networks.mlp import MLP
from metarl.networks.recurrent import ActorCritic
from metarl.networks.reward_model import RewardModel
from metarl.replay import Replay
from metarl.types import Description, Experience, Metrics, Params, Previous, TrajectoryBatch

RATE = 0.1  # weight of a new batch in running statistics
PIECE = 100  # steps whose rewards are predicted at once, of all worlds and candidates


class RewardBeliefState(NamedTuple):
    meta: Params
    """Weights of policy and value function."""
    model: Params
    """Weights of the reward model."""
    known: Params
    """What it follows and does not learn."""
    optimizer: OptimizerState
    model_optimizer: OptimizerState
    return_scale: Float[Tensor, "time 2"]
    replay: Replay
    num_updates: int


class Memory(NamedTuple):
    evidence: Float[Tensor, "world candidate"]
    first: Float[Tensor, "world obs"]
    """The trial's first observation: some rewards are relative to where things began."""
    last: Float[Tensor, "world obs"]


class RewardBeliefActor(NamedTuple):
    params: Params
    model: Params
    known: Params
    memory: Memory | None
    """None before the first step of a trial."""


def seen_of(obs: Tensor, action: Tensor, next_obs: Tensor, first: Tensor) -> Tensor:
    """What the reward model sees of a step, besides the task."""
    return torch.cat([obs, action.clamp(-1, 1), next_obs, first], dim=-1)


@register
@dataclass(frozen=True)
class RewardBelief(MemoryLearner):
    hidden: tuple[int, ...] = ()
    """Which of the task's parameters are to be inferred: at least one."""
    policy: MLP = field(default_factory=lambda: MLP((128, 128), "tanh", init_std=0.7))
    value_sizes: tuple[int, ...] = (128, 128)
    """Units of each tanh layer of the value function."""
    model_size: int = 64
    """Units of the reward model's two layers."""
    candidates: int = 100
    """Tasks that the belief is about, spread evenly over the range of the tasks of training."""
    temper: float = 3.0
    """Standard deviation that rewards are believed to have around their prediction, in root mean square errors of the
    model; above 1, since the errors of consecutive steps are alike."""
    see_belief: bool = True
    """Without the belief it is PPO on all tasks jointly."""
    discount: float = 0.95
    """Discount factor gamma, within a trial."""
    gae_lambda: float = 0.8
    """Lambda of generalized advantage estimation, within a trial."""
    learning_rate: float = 7e-4
    """Adam's step size of policy and value function."""
    epochs: int = 10
    """Passes over a meta-batch."""
    minibatches: int = 8
    """Gradient steps of a pass."""
    clip: float = 0.2
    """PPO clip range epsilon."""
    entropy_bonus: float = 0.0
    """Weight of the policy's entropy in the objective."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this."""
    anneal_updates: int | None = 0
    """Learning rates fall linearly to zero over this many meta-updates; None: over as many as the run has iterations;
    0: they stay."""
    model_learning_rate: float = 2e-3
    """Adam's step size of the reward model."""
    model_updates: int = 100
    """Its gradient steps in a meta-update."""
    model_trials: int = 16
    """Trials of such a step, drawn from the replay."""
    model_steps: int = 2048
    """Steps of those trials that it is of."""
    replay_episodes: int = 1000
    """Room of the replay, in episodes of full length."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "temper", "learning_rate", "clip", "max_grad_norm", "model_learning_rate", above=0)
        require(self, "model_size", "candidates", "epochs", "minibatches", "model_trials", "model_steps", at_least=1)
        require(self, "entropy_bonus", "model_updates", "replay_episodes", at_least=0)
        require(self, "discount", "gae_lambda", at_least=0, at_most=1)

    @property
    def model(self) -> RewardModel:
        return RewardModel(len(self.hidden), self.model_size, self.candidates, self.temper)

    def describe(self) -> Description:
        return Description(type(self).__name__, self.policy, anneal_updates=self.anneal_updates)

    def without_adaptation(self) -> "RewardBelief":
        return replace(self, see_belief=False, model_updates=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> RewardBeliefState:
        num_hidden, num_seen, device = len(self.hidden), 3 * spec.obs_dim + spec.action_dim, generator.device
        if not num_hidden:
            raise ValueError("hidden is (): name the task's parameters to be inferred, such as --hidden 4 5")
        num_inputs = spec.obs_dim + 2 * num_hidden
        meta = self.policy.init(replace(spec, obs_dim=num_inputs), generator)
        meta[f"weight_{len(self.policy.hidden_sizes)}"] *= 0.01  # actions are centered at first
        value = init_layers("value", (num_inputs, *self.value_sizes, 1), generator)
        value[f"value.weight_{len(self.value_sizes)}"].zero_()
        replay = empty_trials(spec, max(1, self.replay_episodes), 64, device)  # the task's parameters, padded
        model, known = self.model.init(num_seen, generator), self.model.nothing_known(num_seen, device)
        return RewardBeliefState(meta | value, model, known, {}, {}, torch.zeros(0, 2, device=device), replay, 0)

    def actor(self, state: RewardBeliefState, num_tasks: int) -> RewardBeliefActor:
        return RewardBeliefActor(state.meta, state.model, state.known, None)

    @torch.no_grad()
    def act(
        self,
        actor: RewardBeliefActor,
        obs: Float[Tensor, "task env obs"],
        previous: Previous,
        generator: torch.Generator,
    ) -> tuple[Float[Tensor, "task env act"], Any, RewardBeliefActor]:
        params, model, known, memory = actor
        here = obs.flatten(0, 1)
        if memory is None:
            evidence = here.new_zeros(len(here), self.candidates)
            memory = Memory(evidence, here, here)
        else:
            action, reward, reached = (x.flatten(0, 1) for x in (previous.action, previous.reward, previous.next_obs))
            seen = seen_of(memory.last, action, reached, memory.first)
            memory = Memory(memory.evidence + self.model.evidence(model, known, seen, reward), memory.first, here)
        features = self.model.features(known, memory.evidence).unflatten(0, obs.shape[:2])
        dist = self._dist(params, self._inputs(obs, features))
        return dist.sample(generator), dist, RewardBeliefActor(params, model, known, memory)

    @torch.no_grad()
    def credit(self, state: RewardBeliefState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials; the observations become what the policy saw, the belief beside them."""
        batch = batch._replace(obs=self._trial_inputs(state, batch))
        valid, ended = batch.valid, ~goes_on(batch.valid)
        reward = batch.reward.where(valid, 0.0)
        returns = discounted_returns(reward, ended, self.discount)
        scale = follow(state.return_scale, scale_of_all(returns, valid), rate=0.0)
        mean, std = mean_and_std(scale, valid.shape[-1])
        value = mean + std * self._value(state.meta, batch.obs)
        advantage = trial_advantages(reward, value, ended, discount=self.discount, gae_lambda=self.gae_lambda)
        return batch._replace(advantage=normalized(advantage, valid), target=value + advantage)

    def update(
        self, state: RewardBeliefState, experience: Experience, generator: torch.Generator
    ) -> tuple[RewardBeliefState, Metrics]:
        """PPO's epochs over the trials, then gradient steps of the reward model over trials of the replay."""
        (batch,) = experience.batches
        if self.anneal_updates is None:
            raise ValueError("anneal_updates is None: metarl.train.train fills in its iterations, else use a number")
        remaining = max(0.0, 1 - state.num_updates / self.anneal_updates) if self.anneal_updates else 1.0
        scale = follow(state.return_scale, scale_of_all(batch.target, batch.valid), rate=RATE)

        def ppo(leaves: Params) -> Iterator[Slope]:
            for part in shares(batch, self.minibatches, generator):
                params = state.meta | leaves
                said = ActorCritic(self._dist(params, part.obs), self._value(params, part.obs), None)
                bonus = self.entropy_bonus * remaining
                loss, terms = trial_loss(said, part, scale, clip=self.clip, value_weight=0.5, entropy_bonus=bonus)
                yield slope_of(loss, terms, leaves, part)

        rate = self.learning_rate * remaining
        pace = {"epochs": self.epochs, "learning_rate": rate, "max_grad_norm": self.max_grad_norm}
        moved = descend(state.meta, state.optimizer, ppo, **pace)
        if moved is None:
            return state, {"train/skipped_updates": 1.0}
        state = state._replace(meta=moved.params, optimizer=moved.optimizer, return_scale=scale)
        metrics = moved.means() | {"train/learning_rate": rate} | self.policy.metrics(moved.params)
        if self.model_updates:
            state, found = self._fit(state, experience, generator, self.model_learning_rate * max(remaining, 0.1))
            metrics |= found
        return state._replace(num_updates=state.num_updates + 1), metrics

    def _fit(
        self, state: RewardBeliefState, experience: Experience, generator: torch.Generator, learning_rate: float
    ) -> tuple[RewardBeliefState, Metrics]:
        """The reward model after gradient steps on trials of the replay, these among them."""
        batch = tree_map(ranks.gathered, experience.batches[0])
        batch = batch._replace(obs=batch.obs[..., : batch.next_obs.shape[-1]])
        task = ranks.gathered(experience.task)
        trials, episodes = trials_of(batch, pad(task, (0, 64 - task.shape[1]))), episodes_of(batch)
        if not episodes:
            return state, {}
        replay = with_trials(state.replay, trials, episodes)
        hidden, rate = task[:, self.hidden].to(batch.reward), RATE if state.num_updates else 1.0
        obs, action, _, next_obs = trials.steps
        seen = seen_of(obs, action, next_obs, obs[:, :1].expand_as(obs))
        known = self.model.followed(state.known, hidden, seen, mean_and_std_of(batch.reward, batch.valid), rate)

        def squares(leaves: Params) -> Iterator[Slope]:
            some = some_trials(replay, episodes, self.model_trials, generator)
            there = valid_of(some).nonzero()
            drawn = torch.randint(len(there), (self.model_steps,), generator=generator, device=generator.device)
            trial, time = there[drawn.to(there.device)].unbind(1)
            steps = tree_map(lambda x: x[trial, time], some.steps)
            seen = seen_of(steps.obs, steps.action, steps.next_obs, some.steps.obs[trial, 0])
            hidden = some.task[trial][:, self.hidden]
            loss = self.model.errors(leaves, known, seen, hidden, steps.reward).square().mean()
            pieces = torch.autograd.grad(loss, list(leaves.values()))
            yield Slope(dict(zip(leaves, pieces, strict=True)), {"train/reward_error": loss.sqrt().item()})

        pace = {"epochs": self.model_updates, "learning_rate": learning_rate, "max_grad_norm": 1.0}
        found = descend(state.model, state.model_optimizer, squares, **pace)
        if found is None:
            return state, {"train/skipped_updates": 1.0}
        errors = torch.tensor([step["train/reward_error"] for step in found.metrics], device=replay.device)
        known["error"] = errors.square().mean().sqrt()
        metrics = {"train/reward_error": known["error"].item()} | self._miss(state, experience)
        return state._replace(model=found.params, model_optimizer=found.optimizer, known=known, replay=replay), metrics

    def _miss(self, state: RewardBeliefState, experience: Experience) -> Metrics:
        """How far the belief's mean was from the task, at the last step, in half widths of the candidates' range."""
        if not state.num_updates:
            return {}
        width = len(self.hidden)
        mean = experience.batches[0].obs[:, :, -1, -2 * width : -width]
        truth = self.model.relative(state.known, experience.task[:, self.hidden].to(mean)).unsqueeze(1)
        return {"train/belief_miss": (mean - truth).square().mean().sqrt().item()}

    def _trial_inputs(self, state: RewardBeliefState, batch: TrajectoryBatch) -> Float[Tensor, "task env time in"]:
        """What the policy saw at each step of whole trials."""
        seen = seen_of(batch.obs, batch.action, batch.next_obs, batch.obs[:, :, :1].expand_as(batch.obs))
        pieces = zip(seen.split(PIECE, dim=2), batch.reward.split(PIECE, dim=2), strict=True)
        evidence = torch.cat([self.model.evidence(state.model, state.known, *piece) for piece in pieces], dim=2)
        evidence = torch.cat([torch.zeros_like(evidence[:, :, :1]), evidence[:, :, :-1].cumsum(2)], dim=2)
        return self._inputs(batch.obs, self.model.features(state.known, evidence))

    def _inputs(
        self, obs: Float[Tensor, "*batch obs"], features: Float[Tensor, "*batch belief"]
    ) -> Float[Tensor, "*batch in"]:
        return torch.cat([obs, features if self.see_belief else torch.zeros_like(features)], dim=-1)

    def _dist(self, params: Params, inputs: Float[Tensor, "*batch in"]) -> Any:
        return tree_map(lambda x: x.expand(*inputs.shape[:-1], x.shape[-1]), self.policy(params, inputs))

    def _value(self, params: Params, inputs: Float[Tensor, "*batch n in"]) -> Float[Tensor, "*batch n"]:
        return apply_layers(params, "value", inputs, torch.tanh).squeeze(-1)


presets.add(
    {
        "push": Experiment(
            task=envs.find_preset("ml1", env="push-v3", standardize=True),
            learner=RewardBelief(hidden=(4, 5), anneal_updates=None),
            num_tasks=40,
            num_envs=1,
            episodes=2,
            iterations=75,
            eval_interval=25,
            eval_tasks=50,
        )
    }
)
