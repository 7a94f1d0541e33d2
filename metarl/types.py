"""The data that flows between rollout and learner, and the two protocols between them.

Axes, never transposed: ``task`` = the meta-batch, ``env`` = parallel worlds of one task, ``time`` = steps, possibly
over several consecutive episodes. Learners are written for one task and ``vmap``ped over the first axis.
"""

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
        """Inner steps; 0 for a learner that adapts through memory."""

    @property
    def remembers(self) -> bool:
        """Whether it adapts through memory, from episode to episode of a trial."""

    def without_adaptation(self) -> "MetaLearner":
        """The learner to compare with: the same one, trained on all tasks jointly without adapting."""

    def init(self, spec: EnvSpec, generator: torch.Generator) -> State:
        """Meta-parameters and optimizer state before training."""

    def explorer(self, state: State, num_tasks: int) -> Actor:
        """What acts first in training: :meth:`actor`, or perturbations of it whose returns are compared."""

    def credit(self, state: State, batch: TrajectoryBatch) -> TrajectoryBatch:
        """Fills ``advantage`` and ``target``."""

    def adapt(self, state: State, actor: Actor, batch: TrajectoryBatch, *, scale: float = 1.0) -> Actor:
        """One inner step on fresh experience, its step size times ``scale``."""

    def update(self, state: State, batches: list[TrajectoryBatch]) -> tuple[State, Metrics]:
        """One meta-update from the batches of every inner step and of the adapted policy."""
