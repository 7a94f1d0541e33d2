"""Ant running in any direction of the plane (Rothfuss et al. 2019; Rakelly et al. 2019).

Task parameter: unit vector d, its angle uniform on the circle.
Reward: <d, velocity in the plane [m/s]> + alive bonus - costs. Terminates outside the healthy heights.
Body, observation, clocks and costs: :mod:`metarl.envs.locomotion.ant`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.draws import all_ways
from metarl.envs.locomotion.ant import PEARL, PROMP, Ant
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class AntDir2D(Ant):
    """Presets: promp (jonasrothfuss/ProMP), pearl (katerakelly/oyster, whose shipped configuration draws two
    directions once, for training and evaluation alike), v5 (Gymnasium's Ant-v5 with its forward reward along d, its
    options ``include_cfrc_ext_in_observation=False, contact_cost_weight=0``).

    VariBAD's AntDir2D has no preset: it takes the x of the unit vector for an angle in radians and drops its y.
    """

    name: ClassVar[str] = "ant_dir_2d"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("direction x", "direction y")

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        return all_ways(num_tasks, generator)

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"run towards {math.degrees(math.atan2(task[1], task[0])):.0f}°"

    def progress_in_plane(
        self, velocity: Float[Tensor, "world 2"], task: Float[Tensor, "world 2"]
    ) -> Float[Tensor, " world"]:
        return (task * velocity).sum(1)


AntDir2D.presets = {"promp": AntDir2D(**PROMP), "pearl": AntDir2D(**PEARL), "v5": AntDir2D()}
