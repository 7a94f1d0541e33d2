"""Humanoid walking forward or backward, or in any direction of the plane (Rothfuss et al. 2019; Rakelly et al. 2019).

Task parameter: unit vector d; (-1, 0) or (1, 0) with equal probability, or its angle uniform on the circle.
Reward: 1.25 * <d, velocity of the center of mass [m/s]> + alive bonus - costs. Terminates outside the healthy heights.
Body, observation and costs: :mod:`metarl.envs.locomotion.humanoid`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.draws import all_ways, two_ways
from metarl.envs.locomotion.humanoid import PEARL, PROMP, SPEED_REWARD, Humanoid
from metarl.envs.physics import Physics
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class HumanoidDir(Humanoid):
    """Presets: promp and promp_2d (jonasrothfuss/ProMP, two ways and all ways), pearl (katerakelly/oyster, all ways,
    contact forces of MuJoCo 2.0: zeros), varibad (lmzintgraf/varibad, the same), v5 and v5_2d (Gymnasium's
    Humanoid-v5 with its forward reward along d, its options ``include_*_in_observation=False,
    contact_cost_weight=0``).
    """

    name: ClassVar[str] = "humanoid_dir"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("direction x", "direction y")

    directions: Literal["two_ways", "all_ways"] = "two_ways"
    """Forward and backward, or every direction of the plane."""

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        if self.directions == "all_ways":
            return all_ways(num_tasks, generator)
        x = two_ways(num_tasks, generator)
        return torch.stack([x, torch.zeros_like(x)], dim=1)

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"walk towards {math.degrees(math.atan2(task[1], task[0])):.0f}°"

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, "world 2"],
        action: Float[Tensor, "world 17"],
        task: Float[Tensor, "world 2"],
    ) -> Float[Tensor, " world"]:
        progress = (task * self.velocity(physics, before)).sum(1)
        return SPEED_REWARD * progress + self.bonus_minus_costs(physics)


HumanoidDir.presets = {
    "promp": HumanoidDir(**PROMP),
    "promp_2d": HumanoidDir(**PROMP, directions="all_ways"),
    "pearl": HumanoidDir(**PEARL, directions="all_ways"),
    "varibad": HumanoidDir(**PEARL, directions="all_ways"),
    "v5": HumanoidDir(),
    "v5_2d": HumanoidDir(directions="all_ways"),
}
