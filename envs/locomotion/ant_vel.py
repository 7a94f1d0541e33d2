"""Ant running at a goal velocity (Finn et al. 2017, section 5.3).

Task parameter: goal velocity g [m/s] along x, uniform in [0, max_velocity].
Reward: -|velocity along x - g| + alive bonus - costs. Terminates outside the healthy heights.
Body, observation, clocks and costs: :mod:`metarl.envs.locomotion.ant`; g:
:class:`metarl.envs.locomotion.running.GoalVelocity`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.locomotion.ant import RLLAB, Ant
from metarl.envs.locomotion.running import GoalVelocity
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class AntVel(Ant, GoalVelocity):
    """Presets: maml2017 (cbfinn/maml_rl, rllab clock), v5 (Gymnasium's Ant-v5 with its forward reward replaced, its
    options ``include_cfrc_ext_in_observation=False, contact_cost_weight=0``)."""

    name: ClassVar[str] = "ant_vel"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    def published_tasks(self, num_tasks: int) -> Float[Tensor, " task"] | None:
        if self != self.presets["maml2017"]:
            return None
        draws = np.random.RandomState(1).uniform(0.0, 3.0, size=num_tasks)  # maml_rl: test_maml_ant.py
        return torch.from_numpy(draws).float()


AntVel.presets = {
    "maml2017": AntVel(**RLLAB | {"alive_bonus": 1.05}),  # 0.05, and 1 so that falling does not pay
    "v5": AntVel(),
}
