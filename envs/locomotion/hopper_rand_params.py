"""The hopper with masses, inertias, dampings and friction of its own in every task (Rothfuss et al. 2019).

Task parameter: 41 multipliers, for 5 masses and 15 inertias (1.5^u), 6 dampings (1.3^u) and 15 friction
coefficients (1.5^u), each u uniform in [-3, 3]; see :mod:`metarl.envs.locomotion.random_dynamics`.
Reward: forward velocity + 1 - 0.001 |action|^2. Horizon 200 (v5: 1,000).
Body, observation and termination: :mod:`metarl.envs.locomotion.hopper`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.hopper import Hopper
from metarl.envs.locomotion.planar import RAND_PARAM_ENVS, V5
from metarl.envs.locomotion.random_dynamics import RandomDynamics
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class HopperRandParams(Hopper, RandomDynamics):
    """Presets: promp and pearl, which are one: rand_param_envs' ``hopper_rand_params.py``; v5 (Gymnasium's Hopper-v5
    under the same multipliers)."""

    name: ClassVar[str] = "hopper_rand_params"
    presets: ClassVar[Mapping[str, TaskDistribution]]


RAND_PARAM_HOPPER = HopperRandParams(**RAND_PARAM_ENVS)
HopperRandParams.presets = {
    "promp": RAND_PARAM_HOPPER,
    "pearl": RAND_PARAM_HOPPER,
    "v5": HopperRandParams(**V5),
}
