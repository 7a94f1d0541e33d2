"""What the ant and the humanoid share: a free body that has to stay up, and the forces of its contacts."""

import math
from dataclasses import dataclass

import mujoco
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.physics import Physics


@dataclass(frozen=True)
class Legged(MujocoTask):
    """Terminates where the height of the torso leaves ``healthy``.

    Contact forces belong to the state that is observed. Gym and Gymnasium show those of a moment up to one substep
    earlier; rllab recomputed them, as here. On MuJoCo 2.0 they were all zero (openai/gym issue 1541).
    """

    zero_contacts: bool = False
    """Contact forces read as zeros, as they did on MuJoCo 2.0."""
    contact_cost: float = 0.0
    """Weight of the squared contact forces."""
    alive_bonus: float = 1.0
    """Reward of each step of a healthy body."""
    bonus_at_the_end: bool = False
    """Pay the alive bonus in the step that terminates, too, as all did before Gymnasium's v5."""
    healthy: tuple[float, float] | None = (0.2, 1.0)
    """Heights of the torso that do not terminate [m]; None: nothing does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.healthy is not None and self.healthy[0] >= self.healthy[1]:
            raise BadField(f"healthy is {self.healthy}: use a lower and an upper height, or None")

    def contacts(self, physics: Physics) -> Float[Tensor, "world 84"]:
        """Torque about the center of mass [N m] and force [N] of the contacts on the world (zeros) and 13 bodies.

        The model needs :func:`add_contact_sensor`; to be read in a reward, they have to be bound by an observation.
        """
        if self.zero_contacts:
            return physics.bind("qpos").new_zeros(physics.num_worlds, 84)
        physics.bind("sensordata")
        return physics.bind("cfrc_ext").flatten(1)

    def bonus(self, physics: Physics) -> Float[Tensor, " world"]:
        """The alive bonus of the present state."""
        bonus = torch.full_like(physics.bind("qpos")[:, 0], self.alive_bonus)
        return bonus if self.bonus_at_the_end else bonus * self.is_healthy(physics)

    def is_healthy(self, physics: Physics) -> Bool[Tensor, " world"]:
        low, high = self.healthy or (-math.inf, math.inf)
        height = physics.bind("qpos")[:, 2]
        return (height >= low) & (height <= high)

    def terminated(self, physics: Physics, task: Float[Tensor, "world ..."]) -> Bool[Tensor, " world"]:
        return ~self.is_healthy(physics)


def add_contact_sensor(spec: mujoco.MjSpec) -> None:
    """An accelerometer that nothing reads: with it, either engine computes all forces of the present state."""
    spec.add_sensor(type=mujoco.mjtSensor.mjSENS_FRAMELINACC, objtype=mujoco.mjtObj.mjOBJ_BODY, objname="torso")
