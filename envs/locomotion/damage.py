"""Tasks that differ in which limb of a body is damaged: its actuators lose some or all of their torque.

Nagabandi et al. 2019 (arXiv 1803.11347, github.com/iclavera/learning_to_adapt, ``learning_to_adapt/envs``) kill one
joint of the half-cheetah or one leg of the ant, and hold one of them out for the test.
"""

import copy
from dataclasses import dataclass
from typing import ClassVar, Literal

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.fields import BadField, require
from metarl.envs.locomotion.random_dynamics import scale_field
from metarl.envs.locomotion.running import Running
from metarl.envs.physics import Physics

RED = (1.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Damage(Running):
    """To be inherited after the body's class. Task parameter: the share of its torque that each actuator keeps."""

    limb_of: ClassVar[tuple[int, ...]]
    """The limb of each actuator."""

    limbs: tuple[int, ...] = ()
    """Limbs of which a task damages one, all as likely; empty: any."""
    max_strength: float = 0.0
    """The damaged limb's actuators keep a share of their torque uniform in [0, max_strength]."""
    charge: Literal["command", "torque"] = "command"
    """The control cost is that of the action, or of what is left of it in the actuators."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not set(self.limbs) <= set(self.limb_of):
            raise BadField(f"limbs is {self.limbs}: use numbers out of {sorted(set(self.limb_of))}")
        require(self, "max_strength", at_least=0, at_most=1)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task actuator"]:
        device = generator.device
        limbs = torch.tensor(self.limbs or sorted(set(self.limb_of)), device=device)
        damaged = limbs[torch.randint(len(limbs), (num_tasks, 1), generator=generator, device=device)]
        strength = self.max_strength * torch.rand(num_tasks, 1, generator=generator, device=device)
        return torch.where(damaged == torch.tensor(self.limb_of, device=device), strength, 1.0)

    def in_words(self, task: Float[Tensor, " actuator"]) -> str:
        return f"run with a limb at {100 * float(task.min()):.0f} % of its torque"

    def apply_task(self, physics: Physics, task: Float[Tensor, "world actuator"]) -> None:
        scale_field(physics, self.model(), "actuator_gear", task.repeat_interleave(6, dim=1))

    def charged(
        self, action: Float[Tensor, "world actuator"], task: Float[Tensor, "world actuator"]
    ) -> Float[Tensor, "world actuator"]:
        return action if self.charge == "command" else action * task

    def model_of(self, task: Float[Tensor, " actuator"]) -> mujoco.MjModel:
        """The damaged limb is red."""
        model = copy.copy(self.model())
        joints = model.actuator_trnid[(task < 1).cpu().numpy(), 0]
        for body in model.jnt_bodyid[joints]:
            model.geom_rgba[model.geom_bodyid == body] = RED
        return model
