"""Ant running forward with one damaged leg (Nagabandi et al. 2019).

Task parameter: the share of its torque that each of the 8 actuators keeps: 1, but for the two of one leg.
Reward: velocity along x [m/s] + alive bonus - costs. Terminates outside the healthy heights. Horizon 1,000.
Legs: 0 front left, 1 front right, 2 back left, 3 back right, in the order of the joints.
Body, observation, clocks and costs: :mod:`metarl.envs.locomotion.ant`; damage: :mod:`metarl.envs.locomotion.damage`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from metarl.envs.locomotion.ant import RLLAB, Ant
from metarl.envs.locomotion.damage import Damage
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class AntDamaged(Ant, Damage):
    """Presets: v5 (Gymnasium's Ant-v5 without contact forces, one leg keeps up to half of its torque), nagabandi2019
    (iclavera/learning_to_adapt, ``ant_env.py``, rllab clock, 41 numbers, no cost, no end: leg 0, 1 or 2 is dead),
    nagabandi2019_test (leg 3, held out). The original also shrinks the dead leg's geoms; here it keeps its shape.
    """

    name: ClassVar[str] = "ant_damaged"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    limb_of: ClassVar[tuple[int, ...]] = (3, 3, 0, 0, 1, 1, 2, 2)


NAGABANDI: dict[str, Any] = RLLAB | {
    "horizon": 1000,
    "include_contacts": False,
    "control_cost": 0.0,
    "contact_cost": 0.0,
    "healthy": None,
}
AntDamaged.presets = {
    "v5": AntDamaged(max_strength=0.5),
    "nagabandi2019": AntDamaged(**NAGABANDI, limbs=(0, 1, 2)),
    "nagabandi2019_test": AntDamaged(**NAGABANDI, limbs=(3,)),
}
