"""The walker running forward or backward (Rothfuss et al. 2019).

Task parameter: direction d, -1 or +1 with equal probability.
Reward: d * forward velocity + 1 - 0.001 |action|^2. Horizon 200 (v5: 1,000).
Body, observation and termination: :mod:`metarl.envs.locomotion.walker2d`; d:
:class:`metarl.envs.locomotion.running.Direction`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from metarl.envs.locomotion.planar import V5
from metarl.envs.locomotion.running import Direction
from metarl.envs.locomotion.walker2d import Walker2d
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class Walker2dDir(Walker2d, Direction):
    """Presets: promp (jonasrothfuss/ProMP, ``walker2d_rand_direc.py``: 8 substeps of 0.002 s a control step), v5
    (Gymnasium's Walker2d-v5 with the direction as the sign of its forward reward)."""

    name: ClassVar[str] = "walker2d_dir"
    presets: ClassVar[Mapping[str, TaskDistribution]]


Walker2dDir.presets = {"promp": Walker2dDir(frame_skip=8), "v5": Walker2dDir(**V5, even_feet=True)}
