"""Half-cheetah running forward with masses, inertias, dampings and friction of its own in every task.

Task parameter: 68 multipliers, for 8 masses and 24 inertias (1.5^u), 9 dampings (1.3^u) and 27 friction
coefficients (1.5^u), each u uniform in [-scale_limit, scale_limit]; see :mod:`metarl.envs.locomotion.random_dynamics`.
Reward: forward velocity - control_cost * |action|^2. Never terminates. Horizon 1,000.
Body, observation and clocks: :mod:`metarl.envs.locomotion.half_cheetah`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.half_cheetah import HalfCheetah
from metarl.envs.locomotion.random_dynamics import RandomDynamics
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class HalfCheetahRandParams(HalfCheetah, RandomDynamics):
    """Preset v5: Gymnasium's HalfCheetah-v5 under the multipliers of the walker and the hopper, which no published
    definition gives the half-cheetah."""

    name: ClassVar[str] = "half_cheetah_rand_params"
    presets: ClassVar[Mapping[str, TaskDistribution]]


HalfCheetahRandParams.presets = {"v5": HalfCheetahRandParams(horizon=1000, control_cost=0.1)}
