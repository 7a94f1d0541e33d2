"""Half-cheetah running forward with one damaged joint (Nagabandi et al. 2019).

Task parameter: the share of its torque that each of the 6 actuators keeps: 1, but for one of them.
Reward: forward velocity - control_cost * |action|^2. Never terminates. Horizon 1,000.
Body, observation and clocks: :mod:`metarl.envs.locomotion.half_cheetah`; damage: :mod:`metarl.envs.locomotion.damage`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from metarl.envs.locomotion.damage import Damage
from metarl.envs.locomotion.half_cheetah import RLLAB, HalfCheetah
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class HalfCheetahDamaged(HalfCheetah, Damage):
    """Presets: v5 (Gymnasium's HalfCheetah-v5, one of 6 joints keeps up to half of its torque), nagabandi2019
    (iclavera/learning_to_adapt, ``half_cheetah_env.py``, rllab clock, episodes of 1,000 steps: one joint but the back
    thigh is dead, and costs nothing), nagabandi2019_test (the dead joint is the one held out, the back thigh)."""

    name: ClassVar[str] = "half_cheetah_damaged"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    limb_of: ClassVar[tuple[int, ...]] = (0, 1, 2, 3, 4, 5)


NAGABANDI: dict[str, Any] = RLLAB | {"horizon": 1000, "charge": "torque"}
HalfCheetahDamaged.presets = {
    "v5": HalfCheetahDamaged(horizon=1000, control_cost=0.1, max_strength=0.5),
    "nagabandi2019": HalfCheetahDamaged(**NAGABANDI, limbs=(1, 2, 3, 4, 5)),
    "nagabandi2019_test": HalfCheetahDamaged(**NAGABANDI, limbs=(0,)),
}
