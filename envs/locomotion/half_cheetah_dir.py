"""Half-cheetah running forward or backward (Finn et al. 2017, section 5.3).

Task parameter: direction d, -1 or +1 with equal probability.
Reward: d * forward velocity - control_cost * |action|^2. Never terminates.
Body, observation and clocks: :mod:`metarl.envs.locomotion.half_cheetah`; d:
:class:`metarl.envs.locomotion.running.Direction`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.locomotion.half_cheetah import RLLAB, HalfCheetah
from metarl.envs.locomotion.running import Direction
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class HalfCheetahDir(HalfCheetah, Direction):
    """Presets: maml2017 (cbfinn/maml_rl, rllab clock), promp (jonasrothfuss/ProMP, horizon 100), v5 (Gymnasium's
    HalfCheetah-v5 with the direction as the sign of its forward reward)."""

    name: ClassVar[str] = "half_cheetah_dir"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    def published_tasks(self, num_tasks: int) -> Float[Tensor, " task"] | None:
        if replace(self, balanced=False) != self.presets["maml2017"]:
            return None
        draws = np.random.RandomState(1).uniform(0.0, 2.0, size=num_tasks)  # maml_rl: test_maml_cheetah_direc.py
        return torch.from_numpy(np.where(draws < 1.0, -1.0, 1.0)).float()


HalfCheetahDir.presets = {
    "maml2017": HalfCheetahDir(**RLLAB),
    "promp": HalfCheetahDir(horizon=100),
    "v5": HalfCheetahDir(horizon=1000, control_cost=0.1),
}
