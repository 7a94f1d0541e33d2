"""What the tasks of running bodies share: a reward of the forward velocity, and the goals that several bodies get.

A task inherits its body first, whose defaults count, then what makes it differ: ``HalfCheetahVel(HalfCheetah,
GoalVelocity)``. The body computes the reward from the two hooks of :class:`Running`, which it leaves to the others.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.draws import half_each, two_ways
from metarl.envs.fields import require
from metarl.envs.mujoco_task import MujocoTask


@dataclass(frozen=True)
class Running(MujocoTask):
    """Reward of a body: progress(forward velocity) - control_cost * |charged(action)|^2, and terms of its own."""

    def progress(self, velocity: Float[Tensor, " world"], task: Float[Tensor, "world ..."]) -> Float[Tensor, " world"]:
        """What a forward velocity [m/s] is worth: itself, unless the task says otherwise."""
        return velocity

    def charged(
        self, action: Float[Tensor, "world actuator"], task: Float[Tensor, "world ..."]
    ) -> Float[Tensor, "world actuator"]:
        """What the control cost is about: the action, unless the task says otherwise."""
        return action


@dataclass(frozen=True)
class Direction(Running):
    """To be inherited after the body's class. Task parameter: forward (1) or backward (-1), equally likely."""

    parameter_names: ClassVar[tuple[str, ...]] = ("direction",)

    balanced: bool = False
    """Of the tasks drawn together, as many run forward as backward, up to one; drawn one by one otherwise."""

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        return (half_each if self.balanced else two_ways)(num_tasks, generator)

    def in_words(self, task: Float[Tensor, ""]) -> str:
        return "run forward" if task > 0 else "run backward"

    def progress(self, velocity: Float[Tensor, " world"], task: Float[Tensor, " world"]) -> Float[Tensor, " world"]:
        return task * velocity


@dataclass(frozen=True)
class GoalVelocity(Running):
    """To be inherited after the body's class. Task parameter: a goal velocity [m/s]."""

    parameter_names: ClassVar[tuple[str, ...]] = ("goal velocity",)

    max_velocity: float = 3.0
    """Goal velocities are uniform in [0, max_velocity] [m/s]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "max_velocity", above=0)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, " task"]:
        return torch.rand(num_tasks, generator=generator, device=generator.device) * self.max_velocity

    def in_words(self, task: Float[Tensor, ""]) -> str:
        return f"run at {float(task):.2f} m/s"

    def progress(self, velocity: Float[Tensor, " world"], task: Float[Tensor, " world"]) -> Float[Tensor, " world"]:
        return -(velocity - task).abs()
