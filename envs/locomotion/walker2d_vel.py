"""The walker running at a goal velocity (Rothfuss et al. 2019).

Task parameter: goal velocity g [m/s], uniform in [0, max_velocity].
Reward: -|forward velocity - g| + alive_bonus - 0.001 |action|^2. The bonus is at least max_velocity, or for fast
goals a fall, which ends the episode, would be worth more than standing still. Horizon 200 (v5: 1,000).
Body, observation and termination: :mod:`metarl.envs.locomotion.walker2d`; g:
:class:`metarl.envs.locomotion.running.GoalVelocity`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.planar import V5
from metarl.envs.locomotion.running import GoalVelocity
from metarl.envs.locomotion.walker2d import Walker2d
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class Walker2dVel(Walker2d, GoalVelocity):
    """Presets: promp (jonasrothfuss/ProMP, ``walker2d_rand_vel.py``: U[0, 10], bonus 15, 8 substeps of 0.002 s a
    control step), v5 (Gymnasium's Walker2d-v5 with its forward reward replaced, U[0, 3], bonus 3)."""

    name: ClassVar[str] = "walker2d_vel"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    alive_bonus: float = 3.0
    """Reward of a step that ends upright."""


Walker2dVel.presets = {
    "promp": Walker2dVel(frame_skip=8, max_velocity=10.0, alive_bonus=15.0),
    "v5": Walker2dVel(**V5, even_feet=True),
}
