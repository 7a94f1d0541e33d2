"""Half-cheetah running at a goal velocity (Finn et al. 2017, section 5.3).

Task parameter: goal velocity g [m/s], uniform in [0, max_velocity].
Reward: -|forward velocity - g| - control_cost * |action|^2. Never terminates.
Body, observation and clocks: :mod:`metarl.envs.locomotion.half_cheetah`; g:
:class:`metarl.envs.locomotion.running.GoalVelocity`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.locomotion.half_cheetah import RLLAB, HalfCheetah
from metarl.envs.locomotion.running import GoalVelocity
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class HalfCheetahVel(HalfCheetah, GoalVelocity):
    """Presets: maml2017 (cbfinn/maml_rl, rllab clock, U[0, 2]), promp (jonasrothfuss/ProMP, U[0, 3]), v5
    (Gymnasium's HalfCheetah-v5 with its forward reward replaced, U[0, 3])."""

    name: ClassVar[str] = "half_cheetah_vel"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    def published_tasks(self, num_tasks: int) -> Float[Tensor, " task"] | None:
        if self != self.presets["maml2017"]:
            return None
        draws = np.random.RandomState(1).uniform(0.0, 2.0, size=num_tasks)  # maml_rl: test_maml_cheetah.py
        return torch.from_numpy(draws).float()


HalfCheetahVel.presets = {
    "maml2017": HalfCheetahVel(**RLLAB, max_velocity=2.0),
    "promp": HalfCheetahVel(horizon=200),
    "v5": HalfCheetahVel(horizon=1000, control_cost=0.1),
}
