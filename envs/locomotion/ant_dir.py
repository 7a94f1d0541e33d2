"""Ant running forward or backward (Finn et al. 2017, section 5.3).

Task parameter: direction d, -1 or +1 with equal probability.
Reward: d * velocity along x [m/s] + alive bonus - costs. Terminates outside the healthy heights.
Body, observation, clocks and costs: :mod:`metarl.envs.locomotion.ant`; d:
:class:`metarl.envs.locomotion.running.Direction`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.locomotion.ant import PEARL, PROMP, RLLAB, VARIBAD, Ant
from metarl.envs.locomotion.running import Direction
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class AntDir(Ant, Direction):
    """Presets: maml2017 (cbfinn/maml_rl, rllab clock), promp (jonasrothfuss/ProMP), pearl (katerakelly/oyster with
    ``forward_backward``), varibad (lmzintgraf/varibad, with its bug: -1 and +1 are taken for angles in radians, so
    both tasks run forward, 57 degrees to either side), v5 (Gymnasium's Ant-v5 with the direction as the sign of its
    forward reward, its options ``include_cfrc_ext_in_observation=False, contact_cost_weight=0``).
    """

    name: ClassVar[str] = "ant_dir"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    as_radians: bool = False
    """VariBAD's bug: the direction of progress is (cos d, sin d) in place of (d, 0)."""

    def published_tasks(self, num_tasks: int) -> Float[Tensor, " task"] | None:
        if replace(self, balanced=False) != self.presets["maml2017"]:
            return None
        draws = np.random.RandomState(2).uniform(0.0, 3.0, size=num_tasks)  # maml_rl: test_maml_ant_direc.py
        return torch.from_numpy(np.where(draws < 1.5, -1.0, 1.0)).float()

    def progress_in_plane(
        self, velocity: Float[Tensor, "world 2"], task: Float[Tensor, " world"]
    ) -> Float[Tensor, " world"]:
        if not self.as_radians:
            return super().progress_in_plane(velocity, task)
        d = task.to(velocity)
        return d.cos() * velocity[:, 0] + d.sin() * velocity[:, 1]


AntDir.presets = {
    "maml2017": AntDir(**RLLAB),
    "promp": AntDir(**PROMP),
    "pearl": AntDir(**PEARL),
    "varibad": AntDir(**VARIBAD, as_radians=True),
    "v5": AntDir(),
}
