"""The contract between task environments and learners: every shape and unit.

Axes: ``task`` = tasks of the meta-batch, ``env`` = parallel worlds of one task, ``world`` = task * num_envs + env.
A *task distribution* is a frozen dataclass: its fields are the definition, its presets are the definitions that
published work used. ``distribution.make(...)`` builds the batched environment of that distribution.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metarl.envs.fields import BadField, require

ENGINES = ("auto", "cpu", "warp", "warp-sorted", "warp-culled")
"""Physics engines that ``make`` knows: MuJoCo in C on CPU threads, MuJoCo Warp on the device; auto takes the one that
fits the device. Of the last two, convex collision sees candidates by type (``metarl.envs.physics.candidates``)."""


LARGEST = 1e15
"""A reward or an observation beyond this is as bad as an infinite one: float32 holds no sum of many such squares."""
FAULTS = ("state", "observation", "reward")
"""What can spoil an episode by being NaN or infinite; the state is that of the physics engine."""


def find_engine(physics: str, device: str | torch.device) -> str:
    """The engine, ``cpu`` or ``warp``, that ``physics`` asks for on ``device``.

    Raises:
        BadField: there is no such engine, or it is not installed.
    """
    if physics not in ENGINES:
        raise BadField(f"physics is {physics!r}: use one of {', '.join(ENGINES)}")
    engine = ("cpu" if torch.device(device).type == "cpu" else "warp") if physics == "auto" else physics
    engine = engine.partition("-")[0]
    if engine == "warp" and find_spec("mujoco_warp") is None:
        raise BadField(
            f"physics is {physics!r}: MuJoCo Warp is not installed, use pip install 'metarl-toolkit[gpu]', or cpu"
        )
    return engine


SHARE: ContextVar[tuple[int, int]] = ContextVar("share", default=(0, 1))
"""Which one this process is, of how many that each simulate an equal part of a run's worlds."""


class Several(torch.Generator):
    """Generators of equally many tasks or worlds each: :func:`drawn` asks each for those of its own.

    Where one is handed on, drawing by another way than :func:`drawn` is an error, which :meth:`require_unused` raises.
    """

    def __new__(cls, parts: Sequence[torch.Generator]) -> "Several":
        return super().__new__(cls, parts[0].device)  # type: ignore[call-arg]

    def __init__(self, parts: Sequence[torch.Generator]) -> None:
        self.parts = list(parts)
        self._before = self.get_state()

    def require_unused(self) -> None:
        if not torch.equal(self.get_state(), self._before):
            raise BadField("a task or policy drew by itself: seeds in lockstep have to draw by metarl.envs.api.drawn")


def parts_of(generator: torch.Generator) -> list[torch.Generator]:
    """The generators it consists of, mostly itself alone."""
    return generator.parts if isinstance(generator, Several) else [generator]


def drawn(
    draw: Callable[..., Tensor], shape: Sequence[int], generator: torch.Generator, dtype: torch.dtype | None = None
) -> Tensor:
    """Random numbers of this process' tasks or worlds, the first axis, as one process would draw them for all.

    Where several processes share a run, each draws the numbers of all and keeps its own. What worlds, policies and
    learners draw for each task or world goes through here: plain calls would give every process the same numbers.

    Args:
        draw: ``torch.rand``, ``torch.randn``, or one that takes what they take.
    """
    if isinstance(generator, Several):
        own = shape[0] // len(generator.parts)
        return torch.cat([drawn(draw, (own, *shape[1:]), of_seed, dtype) for of_seed in generator.parts])
    part, parts = SHARE.get()
    own = shape[0]
    whole = draw((parts * own, *shape[1:]), generator=generator, device=generator.device, dtype=dtype)
    return whole if parts == 1 else whole[part * own : (part + 1) * own]


@dataclass(frozen=True)
class EnvSpec:
    """What a policy must know of an environment."""

    obs_dim: int
    """Length of an observation."""
    action_dim: int
    """Length of an action: continuous ones beyond [-1, 1] are clipped by the environment."""
    horizon: int
    """Steps after which an episode is truncated."""
    terminates: bool
    """Whether an episode can end before its horizon."""
    has_success: bool
    """Whether the task defines success."""
    discrete: bool = False
    """Whether an action is a choice of one out of ``action_dim``, as a one-hot vector."""
    obs_shape: tuple[int, ...] = ()
    """Shape [height, width, channel] of an observation that is a picture, flattened in this order into ``obs_dim``
    numbers, so that an encoder can restore it; empty: observations are vectors."""

    def __post_init__(self) -> None:
        require(self, "obs_dim", "action_dim", "horizon", at_least=1)
        if self.obs_shape and math.prod(self.obs_shape) != self.obs_dim:
            raise BadField(f"obs_shape is {self.obs_shape}: its product is not obs_dim, {self.obs_dim}")


class Signal(NamedTuple):
    """What one number of an observation or an action is, for whoever brings a policy to a robot."""

    name: str
    unit: str = ""
    """Of the observed number; of an action, that of ``low`` and ``high``."""
    low: float | None = None
    """What an action of -1 stands for; those between lie on a line. None: not known."""
    high: float | None = None
    """What an action of 1 stands for."""


class Signals(NamedTuple):
    """The numbers of a task in their order."""

    observation: tuple[Signal, ...]
    action: tuple[Signal, ...]
    """Or the choices, where actions are discrete."""
    seconds: float | None = None
    """Of a control step; None: the task has no clock."""


class Step(NamedTuple):
    """One step of every world. ``obs`` is where the next action acts, ``next_obs`` is where this one led.

    They differ in worlds whose episode ended: there ``next_obs`` is the last observation of the episode and ``obs``
    the first of the next one, so an automatic reset hides neither observation, reward nor flags.

    Observations and rewards are finite, whatever happens: where they would not be, they are 0.
    """

    obs: Float[Tensor, "task env obs"]
    next_obs: Float[Tensor, "task env obs"]
    reward: Float[Tensor, "task env"]
    terminated: Bool[Tensor, "task env"]
    truncated: Bool[Tensor, "task env"]
    success: Bool[Tensor, "task env"]
    diverged: Bool[Tensor, "task env"]
    """The physics of this world failed in this step, or its reward or observation was NaN or infinite, or that was the
    observation it began with: its episode is truncated, and no sample of anything."""


@runtime_checkable
class TaskEnv(Protocol):
    """``num_tasks`` x ``num_envs`` worlds, stepped together."""

    spec: EnvSpec
    num_tasks: int
    num_envs: int
    device: torch.device
    clock: Int[Tensor, "task env"]
    """Steps since the episode of each world began."""
    num_diverged: Int[Tensor, ""]
    """Episodes that diverged so far, of worlds that did not rest. To read it makes a GPU wait."""
    faults: Int[Tensor, "task fault"]
    """The same since :meth:`set_tasks`, by task and by what failed (:data:`FAULTS`)."""

    @property
    def num_overflowed(self) -> int:
        """Episodes whose physics dropped contacts for want of room in the engine's buffers. Makes a GPU wait, too."""

    def set_tasks(self, task: Float[Tensor, "task ..."]) -> None:
        """Gives world (i, j) the task parameter ``task[i]``; call :meth:`reset` before the next step."""

    def reset(self) -> Float[Tensor, "task env obs"]:
        """Starts a new episode in every world."""

    def step(self, action: Float[Tensor, "task env act"]) -> Step:
        """Steps every world and starts a new episode where one ended."""

    def rest(self, worlds: Bool[Tensor, "task env"]) -> None:
        """Lets these worlds, and no others, stand still until they are reset, where the engine can leave worlds out.

        What their steps report means nothing, and is not counted as diverged.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, the reset generator included."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict` exactly."""


@runtime_checkable
class ScalableWorlds(Protocol):
    """Worlds whose physics can be made another than their task's."""

    def scale_model(self, factors: Mapping[str, float]) -> None:
        """From the next tasks on, multiplies these fields of the model, whatever the task makes of them."""
