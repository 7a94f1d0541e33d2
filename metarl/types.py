"""The data that flows between rollout and learner, and the two protocols between them.

Axes, never transposed: ``task`` = the meta-batch, ``env`` = parallel worlds of one task, ``time`` = steps, possibly
over several consecutive episodes. Learners are written for one task and ``vmap``ped over the first axis.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.api import EnvSpec

Params = dict[str, Tensor]
"""The parameters of a network by name; theta = meta-parameters, phi = adapted ones."""

Metrics = dict[str, float]
"""Scalars by TensorBoard tag."""


class Previous(NamedTuple):
    """What happened in the step before, fed to the policy; zeros and False at the first step of a trial."""

    action: Float[Tensor, "task env act"]
    reward: Float[Tensor, "task env"]
    terminated: Bool[Tensor, "task env"]
    truncated: Bool[Tensor, "task env"]
    next_obs: Float[Tensor, "task env obs"]
    """Where the step led, before any automatic reset."""


class TrajectoryBatch(NamedTuple):
    """Experience of a meta-batch; inside ``vmap`` the same without its ``task`` axis."""

    obs: Float[Tensor, "*task env time obs"]
    action: Float[Tensor, "*task env time act"]
    """As sampled, before the environment clips it."""
    reward: Float[Tensor, "*task env time"]
    terminated: Bool[Tensor, "*task env time"]
    """This step ended the MDP: no bootstrap."""
    truncated: Bool[Tensor, "*task env time"]
    """This step hit the time limit: bootstrap from ``next_obs``."""
    clock: Int[Tensor, "*task env time"]
    """Steps since the episode began."""
    success: Bool[Tensor, "*task env time"]
    valid: Bool[Tensor, "*task env time"]
    """False in steps past a world's last episode, and in episodes that diverged: no loss or statistic may see them."""
    log_prob: Float[Tensor, "*task env time"]
    """Of the policy that acted."""
    dist: Any
    """That policy's distribution; leaves ``[*task env time act]``."""
    next_obs: Float[Tensor, "*task env time obs"]
    """Where the step led, before any automatic reset."""
    advantage: Float[Tensor, "*task env time"]
    """Zero until ``credit`` fills it."""
    target: Float[Tensor, "*task env time"]
    """What the value function is fitted to; zero until ``credit`` fills it."""


Actor = Any
"""What acts in a meta-batch of tasks: adapted parameters [task ...] for MAML, parameters and memory for RL²."""

State = TypeVar("State")


class Experience(NamedTuple):
    """What a meta-update learns from."""

    task: Float[Tensor, "task ..."]
    """Parameters of the tasks, as ``TaskDistribution.sample`` drew them."""
    explorer: Actor
    """Who acted first: what :meth:`MetaLearner.explorer` gave."""
    batches: list[TrajectoryBatch]
    """Credited experience before each inner step, and of the adapted policy."""


class Stage(NamedTuple):
    """How far adaptation has come, where it is tested, plotted and filmed."""

    label: str
    """``before``, ``1 step``; ``episode 2`` ..."""
    episodes: int = 1
    """Consecutive episodes of a world up to the end of this one, remembered; 1 where inner steps lead to it."""
    scale: float = 1.0
    """Size of the inner step that leads to it, as a multiple of the learner's; 1 where none does."""


class Description(NamedTuple):
    """What runs and reports say of a learner."""

    name: str
    """In legends, with what tells it from its kin."""
    policy: Any = None
    """What acts, where it is a part of the learner: it is asked whether it fits a task."""
    inner_lr: float | None = None
    """Step size of its inner steps, where it has any."""
    learns_inner_lr: bool = False
    """Whether that is only where the learned ones begin."""
    anneal_updates: int | None = 0
    """Meta-updates after which its schedule ends; 0: it has none; None: the field of this name follows the run."""
    num_policies: int = 1
    """Policies that act side by side in each task in training; its worlds are divided among them."""


@runtime_checkable
class Agent(Protocol):
    """What can be tested: something that acts, and may remember."""

    def actor(self, state: Any, num_tasks: int) -> Actor:
        """What acts before any experience of the task."""

    def act(
        self, actor: Actor, obs: Float[Tensor, "task env obs"], previous: Previous, generator: torch.Generator
    ) -> tuple[Float[Tensor, "task env act"], Any, Actor]:
        """Samples an action; returns it, the distribution it came from, and the actor with its new memory."""


@runtime_checkable
class MetaLearner(Agent, Protocol[State]):
    """An algorithm: its hyperparameters, and these pure functions of them."""

    @property
    def adapt_steps(self) -> int:
        """Inner steps in training; 0 for a learner that adapts through memory."""

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]:
        """How it adapts when it is tested.

        Args:
            trial: episodes of a trial, for a learner that remembers from episode to episode.
            steps: inner steps, for one that takes them; None: as many as in training, but one at least.
            later: size of those after the first, as a multiple of the learner's.
        """

    def describe(self) -> Description:
        """What is said of it."""

    def without_adaptation(self) -> "MetaLearner":
        """The learner to compare with: the same one, trained on all tasks jointly without adapting."""

    def init(self, spec: EnvSpec, generator: torch.Generator) -> State:
        """Meta-parameters and optimizer state before training."""

    def explorer(self, state: State, num_tasks: int, generator: torch.Generator) -> Actor:
        """What acts first in training: :meth:`actor`, or perturbations of it whose returns are compared."""

    def credit(self, state: State, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Fills ``advantage`` and ``target``."""

    def adapt(self, state: State, actor: Actor, batch: TrajectoryBatch, *, scale: float = 1.0) -> Actor:
        """One inner step on fresh experience, its step size times ``scale``."""

    def update(self, state: State, experience: Experience, generator: torch.Generator) -> tuple[State, Metrics]:
        """One meta-update; what it draws comes from ``generator``."""


def inner_stages(steps: int, later: float) -> list[Stage]:
    """Of a learner with so many inner steps."""
    after = [f"{k} step{'s' * (k > 1)}" for k in range(1, steps + 1)]
    return [Stage("before"), *(Stage(label, scale=later if k else 1.0) for k, label in enumerate(after))]


def trial_stages(trial: int) -> list[Stage]:
    """Of a learner that remembers all of a trial."""
    return [Stage(f"episode {k}", k) for k in range(1, trial + 1)]


@runtime_checkable
class Staged(Protocol):
    """Any learner, few-shot ones included, as far as its stages tell."""

    def stages(self, trial: int, *, steps: int | None = None, later: float = 1.0) -> list[Stage]: ...


def remembers(learner: Staged) -> bool:
    """Whether it adapts through memory, so that the consecutive episodes of a world are one trial."""
    return learner.stages(2)[-1].episodes > 1


def inner_scales(stages: Sequence[Stage]) -> list[float]:
    """Sizes of the inner steps between the stages."""
    return [stage.scale for stage in stages[1:] if stage.episodes == 1]
