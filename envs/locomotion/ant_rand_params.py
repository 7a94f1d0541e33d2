"""Ant running forward with masses, inertias, dampings and friction of its own in every task.

Task parameter: 112 multipliers, for 14 masses and 42 inertias (1.5^u), 14 dampings (1.3^u) and 42 friction
coefficients (1.5^u), each u uniform in [-scale_limit, scale_limit]; see :mod:`metarl.envs.locomotion.random_dynamics`.
Reward: velocity along x [m/s] + alive bonus - costs. Terminates outside the healthy heights. Horizon 1,000.
Body, observation, clocks and costs: :mod:`metarl.envs.locomotion.ant`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.ant import Ant
from metarl.envs.locomotion.random_dynamics import RandomDynamics
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class AntRandParams(Ant, RandomDynamics):
    """Preset v5: Gymnasium's Ant-v5 without contact forces, under the multipliers of the walker and the hopper, which
    no published definition gives the ant."""

    name: ClassVar[str] = "ant_rand_params"
    presets: ClassVar[Mapping[str, TaskDistribution]]


AntRandParams.presets = {"v5": AntRandParams()}
