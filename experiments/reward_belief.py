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
from torch.utils._pytree import tree_map

from metarl import Experiment, envs, presets, ranks, register
from metarl.algorithms.trial_replay import empty_trials, episodes_of, some_trials, trials_of, valid_of, with_trials
from metarl.algorithms.trials import SCALE_RATE, TrialPPO
from metarl.envs import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.losses.optim import OptimizerState
from metarl.losses.ppo import Slope, descend, slope_of
from metarl.losses.return_scale import mean_and_std_of
from metarl.networks.distributions import of_each
from metarl.networks.mlp import MLP, require_layers
from metarl.networks.reward_model import RewardModel
from metarl.networks.values import init_actor_critic
from metarl.replay import Replay
from metarl.types import Experience, Metrics, Params, Previous, TrajectoryBatch

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
class RewardBelief(TrialPPO):
    hidden: tuple[int, ...] = (0,)
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
    gae_lambda: float = 0.8
    minibatches: int = 8
    entropy_bonus: float = 0.0
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
        super().__post_init__()
        require(self, "temper", "model_learning_rate", above=0)
        require(self, "model_size", "candidates", "model_trials", "model_steps", at_least=1)
        require(self, "model_updates", "replay_episodes", at_least=0)
        require_layers("value_sizes", self.value_sizes)
        if not self.hidden or min(self.hidden) < 0:
            raise BadField(f"hidden is {self.hidden}: name the task's parameters to be inferred, such as --hidden 4 5")

    @property
    def model(self) -> RewardModel:
        return RewardModel(len(self.hidden), self.model_size, self.candidates, self.temper)

    def without_adaptation(self) -> "RewardBelief":
        return replace(self, see_belief=False, model_updates=0)

    def init(self, spec: EnvSpec, generator: torch.Generator) -> RewardBeliefState:
        num_hidden, num_seen, device = len(self.hidden), 3 * spec.obs_dim + spec.action_dim, generator.device
        meta = init_actor_critic(self.policy, self.value_sizes, spec, spec.obs_dim + 2 * num_hidden, generator)
        meta[f"weight_{len(self.policy.hidden_sizes)}"] *= 0.01  # actions are centered at first
        replay = empty_trials(spec, max(1, self.replay_episodes), num_hidden, device)
        model, known = self.model.init(num_seen, generator), self.model.nothing_known(num_seen, device)
        return RewardBeliefState(meta, model, known, {}, {}, torch.zeros(0, 2, device=device), replay, 0)

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
        seen = self._inputs(obs, features)
        dist = of_each(self.policy(params, seen), seen)
        return dist.sample(generator), dist, RewardBeliefActor(params, model, known, memory)

    @torch.no_grad()
    def credit(self, state: RewardBeliefState, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Advantages over whole trials; the observations become what the policy saw, the belief beside them."""
        return super().credit(state, batch._replace(obs=self._trial_inputs(state, batch)))

    def update(
        self, state: RewardBeliefState, experience: Experience, generator: torch.Generator
    ) -> tuple[RewardBeliefState, Metrics]:
        """PPO's epochs over the trials, then gradient steps of the reward model over trials of the replay."""
        new, metrics = self.improved(state, experience.batches[0], generator)
        if new is state or not self.model_updates:
            return new, metrics
        learning_rate = self.model_learning_rate * max(self.remaining(state), 0.1)
        new, found = self._fit(new, experience, generator, learning_rate)
        return new, metrics | found

    def _fit(
        self, state: RewardBeliefState, experience: Experience, generator: torch.Generator, learning_rate: float
    ) -> tuple[RewardBeliefState, Metrics]:
        """The reward model after gradient steps on trials of the replay, these among them."""
        batch = tree_map(ranks.gathered, experience.batches[0])
        hidden = ranks.gathered(experience.task)[:, self.hidden].to(batch.reward)
        trials, episodes = trials_of(batch, hidden), episodes_of(batch)
        if not episodes:
            return state, {}
        replay = with_trials(state.replay, trials, episodes)
        rate = SCALE_RATE if state.num_updates > 1 else 1.0
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
            loss = self.model.errors(leaves, known, seen, some.task[trial], steps.reward).square().mean()
            yield slope_of(loss, {"train/reward_error": loss.sqrt()}, leaves)

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
        if state.num_updates == 1:
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
