"""A MuJoCo task distribution x a physics engine -> a batched task environment.

A task is a few pure functions of the physics' named fields; it never learns which engine runs it.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import gymnasium
import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.actuators import require_actuators
from metarl.envs.api import Signal, Signals
from metarl.envs.fields import BadField, require
from metarl.envs.physics import Physics, make_physics, multiply
from metarl.envs.signals import actuators, counted
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds

ASSETS = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
"""Gymnasium's models."""


@dataclass(frozen=True)
class MujocoTask(BatchedTasks):
    """What a task file says about its task, all of it over worlds at once."""

    joinable: ClassVar[bool] = True

    frame_skip: int = 1
    """Physics substeps a control step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "frame_skip", at_least=1, at_most=1000)

    @abstractmethod
    def model(self) -> mujoco.MjModel:
        """The compiled model; actions from -1 to 1 stand for an actuator's ctrlrange, which it needs."""

    def model_of(self, task: Float[Tensor, "..."]) -> mujoco.MjModel:
        """As :class:`metarl.envs.camera.VisibleTask`; by default every task looks the same."""
        return self.model()

    def apply_task(self, physics: Physics, task: Float[Tensor, "world ..."]) -> None:
        """Writes into the model what a task changes of it (a mass, say); nothing by default."""

    @abstractmethod
    def reset_state(self, physics: Physics, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        """Writes initial states into the worlds of ``mask``, which hold the model's defaults."""

    @abstractmethod
    def observe(self, physics: Physics) -> Float[Tensor, "world obs"]:
        """The observation, in a new tensor."""

    def measure(self, physics: Physics) -> Float[Tensor, "world ..."]:
        """What the reward compares before and after a step (a position, say), in a new tensor; nothing by default."""
        return torch.zeros(physics.num_worlds, 0, device=physics.device)

    @abstractmethod
    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, "world ..."],
        action: Float[Tensor, "world act"],
        task: Float[Tensor, "world ..."],
    ) -> Float[Tensor, " world"]:
        """The reward of the step that led from :meth:`measure` = ``before`` to the present state."""

    def terminated(self, physics: Physics, task: Float[Tensor, "world ..."]) -> Bool[Tensor, " world"]:
        """Where the episode ends for good; nowhere by default."""
        return torch.zeros(physics.num_worlds, dtype=torch.bool, device=physics.device)

    def success(self, physics: Physics, task: Float[Tensor, "world ..."]) -> Bool[Tensor, " world"]:
        """Where the task is solved in the present state; nowhere by default."""
        return torch.zeros(physics.num_worlds, dtype=torch.bool, device=physics.device)

    def observed(self, model: mujoco.MjModel) -> list[Signal]:
        """What each number of :meth:`observe` is, for a reader of an exported policy; by default only counted."""
        return counted("observation", range(self.spec.obs_dim))

    def signals(self) -> Signals:
        model, spec = self.model(), self.spec
        action = actuators(model)
        if spec.discrete:  # choices between actuators at rest and at work
            action = [Signal(choice.name) for choice in action]
        return Signals(tuple(self.observed(model)), tuple(action), float(model.opt.timestep) * self.frame_skip)

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        model = self.model()
        require_actuators(model, self.name or type(self).__name__)
        engine = make_physics(model, num_worlds, engine=physics, device=device, num_threads=num_threads)
        return MujocoWorlds(self, engine, device)


class MujocoWorlds:
    """:class:`metarl.envs.worlds.Worlds` of one task over one physics engine.

    Observations and rewards are computed in the engine's precision and leave in ``dtype`` on ``device``.
    """

    def __init__(
        self, task: MujocoTask, physics: Physics, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self.task, self.physics = task, physics
        self._device, self._dtype = device, dtype
        model = task.model()
        ctrlrange = torch.as_tensor(model.actuator_ctrlrange, device=physics.device)
        self._ctrl_center, self._ctrl_scale = ctrlrange.mean(1), (ctrlrange[:, 1] - ctrlrange[:, 0]) / 2
        self._task_parameter = torch.zeros(physics.num_worlds, device=physics.device)
        self._tasks_given = False
        self._factors: dict[str, float] = {}
        self._ctrl = physics.bind("ctrl")
        self._awake = torch.ones(physics.num_worlds, dtype=torch.bool, device=physics.device)
        self._nowhere = torch.zeros(physics.num_worlds, dtype=torch.bool, device=device)
        self._ends = type(task).terminated is not MujocoTask.terminated  # else nowhere, and not asked
        self._solves = type(task).success is not MujocoTask.success
        task.measure(physics)  # binds what it reads before the first step
        expected = (physics.num_worlds, task.spec.obs_dim)
        if (shape := tuple(task.observe(physics).shape)) != expected:
            raise BadField(f"observe of {task.name} gives {shape}: [world, obs_dim] is {expected}")
        if model.nu != task.spec.action_dim:
            raise BadField(f"action_dim of {task.name} is {task.spec.action_dim}: its model has {model.nu} actuators")

    def set_tasks(self, task: Float[Tensor, "world ..."]) -> None:
        self._task_parameter, self._tasks_given = task.to(self.physics.device), True
        if not self._factors:
            self.task.apply_task(self.physics, self._task_parameter)
            return
        model = self.task.model()
        for field in self._factors:  # a task writes all of a field or nothing of it
            if (own := torch.as_tensor(getattr(model, field))).numel():
                values = self.physics.expand(field)
                values.copy_(own.reshape(values.shape[1:]))
        self.task.apply_task(self.physics, self._task_parameter)
        multiply(self.physics, model, self._factors)

    def scale_model(self, factors: Mapping[str, float]) -> None:
        self._factors = dict(factors)

    def seed(self, seed: int) -> None:
        """As :class:`metarl.envs.worlds.SeededWorlds`: nothing here draws, and a reset leaves nothing as it was."""
        self._tasks_given, self._awake = False, torch.ones_like(self._awake)

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        mask = mask.to(self.physics.device)
        self.physics.reset(mask)
        self.task.reset_state(self.physics, mask, generator)
        self.physics.forward(mask)
        self._awake |= mask

    def rest(self, mask: Bool[Tensor, " world"]) -> None:
        self._awake = ~mask.to(self.physics.device)

    def observe(self) -> Float[Tensor, "world obs"]:
        return self.task.observe(self.physics).to(self._device, self._dtype)

    def pose(self, world: int) -> Float[Tensor, " qpos"]:
        return self.physics.bind("qpos")[world].cpu().clone()

    @property
    def num_overflowed(self) -> int:
        return self.physics.num_overflowed

    def step(self, action: Float[Tensor, "world act"]) -> Outcome:
        physics, task = self.physics, self.task
        action = action.detach().to(self._ctrl)
        before = task.measure(physics)
        torch.add(action * self._ctrl_scale, self._ctrl_center, out=self._ctrl)
        diverged = physics.step(task.frame_skip, self._awake)
        reward = task.reward(physics, before, action, self._task_parameter)
        if reward.shape != diverged.shape:
            raise BadField(f"reward of {task.name} gives {tuple(reward.shape)}: [world] is {tuple(diverged.shape)}")
        terminated = task.terminated(physics, self._task_parameter).to(self._device) if self._ends else self._nowhere
        success = task.success(physics, self._task_parameter).to(self._device) if self._solves else self._nowhere
        return Outcome(reward.to(self._device, self._dtype), terminated, success, diverged.to(self._device))

    def state_dict(self) -> dict[str, Tensor]:
        task = {"task": self._task_parameter.clone()} if self._tasks_given else {}
        return {**task, **self.physics.state_dict()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if "task" in state:
            self.set_tasks(state["task"].clone())
        self.physics.load_state_dict(state)
