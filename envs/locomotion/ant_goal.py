"""Ant running to a goal position (Finn et al. 2017 in code; Rothfuss et al. 2019; Rakelly et al. 2019).

Task parameter: goal (x, y) [m], uniform in the square [-3, 3]^2 or in the disk of radius 3.
Reward: -(|x - goal x| + |y - goal y|) + alive bonus - costs, the distance being that after the step. Terminates where
the preset says so. The position is observed, the goal is not.
Body, observation, clocks and costs: :mod:`metarl.envs.locomotion.ant`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import mujoco
import torch
from jaxtyping import Float
from torch import Tensor

from metarl.envs.fields import require
from metarl.envs.locomotion.ant import RLLAB, TORSO, XML, Ant
from metarl.envs.physics import Physics
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class AntGoal(Ant):
    """Presets: maml2017 (cbfinn/maml_rl, rllab clock, square), promp (jonasrothfuss/ProMP, disk), pearl
    (katerakelly/oyster: the same, with the contact forces of MuJoCo 2.0, all zero; its README says that it does not
    reproduce), varibad (lmzintgraf/varibad: ProMP's, for which its README asks MuJoCo 1.50, because of those zeros),
    v5 (ProMP's reward on Gymnasium's Ant-v5, its options ``include_cfrc_ext_in_observation=False,
    exclude_current_positions_from_observation=False``, no contact cost).
    """

    name: ClassVar[str] = "ant_goal"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("goal x", "goal y")

    goals: Literal["disk", "square"] = "disk"
    """Where goals are uniform: in the disk or in the square around the start."""
    radius: float = 3.0
    """Radius of the disk, half the side of the square [m]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "radius", above=0)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        first, second = torch.rand(2, num_tasks, generator=generator, device=generator.device)
        if self.goals == "square":
            return self.radius * (2 * torch.stack([first, second], dim=1) - 1)
        radius, angle = self.radius * first.sqrt(), 2 * math.pi * second  # area grows with the radius squared
        return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"go to ({float(task[0]):.1f}, {float(task[1]):.1f}) m"

    def model_of(self, task: Float[Tensor, "2"]) -> mujoco.MjModel:
        spec = mujoco.MjSpec.from_file(str(XML))
        spec.worldbody.add_site(name="goal", pos=[*task.tolist(), 0.1], size=[0.2, 0, 0], rgba=[0.2, 0.8, 0.2, 1])
        return spec.compile()

    def measure(self, physics: Physics) -> Float[Tensor, "world 2"]:
        """Where the torso or the center of mass is [m]."""
        if self.tracking == "torso":
            return physics.bind("qpos")[:, :2].clone()
        return physics.bind("subtree_com")[:, TORSO, :2].clone()

    def reward(
        self,
        physics: Physics,
        before: Float[Tensor, "world 2"],
        action: Float[Tensor, "world 8"],
        task: Float[Tensor, "world 2"],
    ) -> Float[Tensor, " world"]:
        progress = -(self.measure(physics) - task).abs().sum(1)
        return progress + self.bonus_minus_costs(physics, action)


_WANDER: dict[str, Any] = {"include_position": True, "alive_bonus": 0.0, "control_cost": 0.1, "healthy": None}
_PROMP = _WANDER | {"horizon": 200, "include_contacts": True, "contact_cost": 5e-4}

AntGoal.presets = {
    "maml2017": AntGoal(**RLLAB | {"alive_bonus": 4.05}, goals="square"),  # 0.05, and 4 so that falling does not pay
    "promp": AntGoal(**_PROMP),
    "pearl": AntGoal(**_PROMP, zero_contacts=True),
    "varibad": AntGoal(**_PROMP),
    "v5": AntGoal(**_WANDER),
}
