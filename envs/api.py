"""The contract between task environments and learners: every shape and unit.

Axes: ``task`` = tasks of the meta-batch, ``env`` = parallel worlds of one task, ``world`` = task * num_envs + env.
A *task distribution* is a frozen dataclass: its fields are the definition, its presets are the definitions that
published work used. ``distribution.make(...)`` builds the batched environment of that distribution.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import mujoco
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ENGINES = ("auto", "cpu", "warp")
"""Physics engines that ``make`` knows: MuJoCo in C on CPU threads, MuJoCo Warp on the device; auto takes the one that
fits the device."""


class BadField(ValueError):
    """A field of a dataclass has a value that cannot work; the message names both and says what would do."""


def require(
    owner: object, *names: str, above: int | None = None, at_least: int | None = None, at_most: int | None = None
) -> None:
    """Refuses fields of a dataclass that are not the numbers asked for; NaN never is.

    Raises:
        BadField: the first such field.
    """
    bounds = {"more than": above, "at least": at_least, "at most": at_most}
    wanted = " and ".join(f"{relation} {bound}" for relation, bound in bounds.items() if bound is not None)
    for name in names:
        value = getattr(owner, name)
        enough = (above is None or value > above) and (at_least is None or value >= at_least)
        if not (enough and value <= (math.inf if at_most is None else at_most)):
            raise BadField(f"{name} is {value}: use {wanted}")


def find_engine(physics: str, device: str | torch.device) -> str:
    """The engine, ``cpu`` or ``warp``, that ``physics`` asks for on ``device``.

    Raises:
        BadField: there is no such engine, or it is not installed.
    """
    if physics not in ENGINES:
        raise BadField(f"physics is {physics!r}: use one of {', '.join(ENGINES)}")
    engine = ("cpu" if torch.device(device).type == "cpu" else "warp") if physics == "auto" else physics
    if engine == "warp" and find_spec("mujoco_warp") is None:
        raise BadField(f"physics is {physics!r}: MuJoCo Warp is not installed, use pip install 'metarl[gpu]', or cpu")
    return engine


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


class Step(NamedTuple):
    """One step of every world. ``obs`` is where the next action acts, ``next_obs`` is where this one led.

    They differ in worlds whose episode ended: there ``next_obs`` is the last observation of the episode and ``obs``
    the first of the next one, so an automatic reset hides neither observation, reward nor flags.
    """

    obs: Float[Tensor, "task env obs"]
    next_obs: Float[Tensor, "task env obs"]
    reward: Float[Tensor, "task env"]
    terminated: Bool[Tensor, "task env"]
    truncated: Bool[Tensor, "task env"]
    success: Bool[Tensor, "task env"]
    diverged: Bool[Tensor, "task env"]
    """The physics of this world failed in this step, which carries no information; its episode is truncated."""


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
    """Worlds whose physics failed so far; their episode was cut there. To read it makes a GPU wait."""

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

        What their steps report means nothing.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, the reset generator included."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state_dict` exactly."""


@runtime_checkable
class VisibleTask(Protocol):
    """A task distribution of MuJoCo models, which a video can show; its environments hold :class:`VisibleWorlds`."""

    @property
    def horizon(self) -> int:
        """Steps of an episode."""

    @property
    def frame_skip(self) -> int:
        """Physics substeps a control step."""

    def model_of(self, task: Float[Tensor, "..."]) -> mujoco.MjModel:
        """A model that looks as one task does, goal included.

        A first body that moves about (:func:`moves_about`) is followed, seen from the side; else the model's own free
        camera shows the scene (``vis.global_`` and ``stat``).
        """


def moves_about(model: mujoco.MjModel) -> bool:
    """Whether the first body leaves its place: it has joints, and the first of them is no hinge."""
    return bool(model.body_dofnum[1] > 0 and model.jnt_type[0] != mujoco.mjtJoint.mjJNT_HINGE)


@runtime_checkable
class VisibleWorlds(Protocol):
    """Worlds of a :class:`VisibleTask`, ``env.worlds``."""

    def pose(self, world: int) -> Float[Tensor, " qpos"]:
        """The generalized positions of one world, in a new tensor."""


TASKS: dict[str, type["TaskDistribution"]] = {}
"""Every task distribution by name; defining a subclass with ``name`` registers it."""


@dataclass(frozen=True)
class TaskDistribution(ABC):
    """A distribution over tasks p(T), with the definition of one task."""

    name: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, "TaskDistribution"]] = {}
    """Definitions by provenance, e.g. ``maml2017``."""

    horizon: int = 100
    """Steps of an episode."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" in vars(cls):
            if (other := TASKS.get(cls.name, cls)).__name__ != cls.__name__:
                raise BadField(f"name is {cls.name!r}: {other.__name__} has it, give {cls.__name__} another")
            TASKS[cls.name] = cls
            if "presets" not in vars(cls):
                cls.presets = {}  # those of the class it is made of are other tasks

    def __post_init__(self) -> None:
        require(self, "horizon", at_least=1)

    @property
    @abstractmethod
    def spec(self) -> EnvSpec:
        """Dimensions of the environment."""

    @property
    def num_test_tasks(self) -> int | None:
        """How many held-out tasks there are; None: as many as are asked for."""
        return None

    @abstractmethod
    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task ..."]:
        """Draws task parameters; the number of worlds has no influence on them."""

    def published_tasks(self, num_tasks: int) -> Float[Tensor, "task ..."] | None:
        """The very tasks a paper evaluated on, or None where they are not known."""
        return None

    def labels(self, task: Float[Tensor, "task ..."]) -> list[str]:
        """The kind of each task, where a benchmark has several kinds: results are also listed by it."""
        return []

    @abstractmethod
    def make(
        self,
        num_tasks: int,
        num_envs: int,
        *,
        seed: int,
        device: str = "cpu",
        physics: str = "auto",
        num_threads: int = 0,
    ) -> TaskEnv:
        """Builds the batched environment; ``seed`` seeds its resets alone."""


def make(task: str, num_tasks: int, num_envs: int, *, preset: str | None = None, **options: Any) -> TaskEnv:
    """The environment of a task by name: ``make("half_cheetah_dir", 20, 20, preset="v5", seed=0)``.

    Raises:
        ValueError: unknown task or preset, with the names there are.
    """
    return find_preset(task, preset).make(num_tasks, num_envs, **options)


def find_preset(task: str, preset: str | None = None) -> TaskDistribution:
    """The task distribution called ``task``, in the definition ``preset`` (None: its first, or its defaults)."""
    if task not in TASKS:
        raise ValueError(f"task is {task!r}: use one of {', '.join(sorted(TASKS))}")
    presets = TASKS[task].presets
    if preset is not None and preset not in presets:
        raise ValueError(f"preset is {preset!r}: {task} has {', '.join(presets) or 'none'}")
    if not presets:
        return TASKS[task]()
    return presets[preset if preset is not None else next(iter(presets))]


def presets_of(task: TaskDistribution) -> list[str]:
    """The names of the presets that define exactly this task."""
    return [name for name, definition in task.presets.items() if definition == task]
