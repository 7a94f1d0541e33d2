"""The walker: a torso on two legs in the x-z plane; the tasks are in the files beside this one.

Observation (17 numbers):

| index | meaning                                                        | unit  |
|-------|----------------------------------------------------------------|-------|
| 0     | height of the torso                                            | m     |
| 1     | pitch of the torso                                             | rad   |
| 2-7   | joint angles: right thigh, leg, foot, left thigh, leg, foot    | rad   |
| 8-9   | velocity of the torso along x and z, in [-10, 10]              | m/s   |
| 10    | pitch rate of the torso, in [-10, 10]                          | rad/s |
| 11-16 | joint velocities, in the order of 2-7, in [-10, 10]            | rad/s |

Action: 6 torques in [-1, 1], scaled by the gear 100 N m.
Termination: height outside (0.8, 2.0) m or pitch outside (-1, 1) rad. The rest: :mod:`metarl.envs.locomotion.planar`.
"""

from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.planar import Planar


@dataclass(frozen=True)
class Walker2d(Planar):
    """What the walker's tasks share."""

    heights: ClassVar[tuple[float, float]] = (0.8, 2.0)
    pitches: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    even_feet: bool = False
    """Friction 1.9 under both feet (Gymnasium's v5), not 0.9 under the right one (every version before, by mistake)."""

    @property
    def xml(self) -> str:
        return "walker2d_v5.xml" if self.even_feet else "walker2d.xml"
