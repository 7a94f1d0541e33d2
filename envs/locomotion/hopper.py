"""The hopper: a torso on one leg in the x-z plane; its task is in :mod:`metarl.envs.locomotion.hopper_rand_params`.

Observation (11 numbers):

| index | meaning                                           | unit  |
|-------|---------------------------------------------------|-------|
| 0     | height of the torso                               | m     |
| 1     | pitch of the torso                                | rad   |
| 2-4   | joint angles: thigh, leg, foot                    | rad   |
| 5-6   | velocity of the torso along x and z, in [-10, 10] | m/s   |
| 7     | pitch rate of the torso, in [-10, 10]             | rad/s |
| 8-10  | joint velocities, in the order of 2-4             | rad/s |

Action: 3 torques in [-1, 1], scaled by the gear 200 N m.
Termination: height at or below 0.7 m, pitch outside (-0.2, 0.2) rad, or any other angle or velocity outside
(-100, 100). The rest: :mod:`metarl.envs.locomotion.planar`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool
from torch import Tensor

from metarl.envs.locomotion.planar import Planar
from metarl.envs.physics import Physics

STATE_LIMIT = 100.0


@dataclass(frozen=True)
class Hopper(Planar):
    """What the hopper's tasks share."""

    heights: ClassVar[tuple[float, float]] = (0.7, math.inf)
    pitches: ClassVar[tuple[float, float]] = (-0.2, 0.2)

    @property
    def xml(self) -> str:
        return "hopper.xml"

    def upright(self, physics: Physics) -> Bool[Tensor, " world"]:
        angles, velocities = physics.bind("qpos")[:, 2:], physics.bind("qvel")
        bounded = (angles.abs() < STATE_LIMIT).all(1) & (velocities.abs() < STATE_LIMIT).all(1)
        return super().upright(physics) & bounded
