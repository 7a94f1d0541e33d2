"""A room of MiniGrid in which one cell, that nobody sees, is the goal.

Observation: a picture [size, size, 3] of the whole room, MiniGrid's encoding of a cell over its largest values here:

| channel | meaning                                            |
|---------|----------------------------------------------------|
| 0       | object / 10: 0.1 nothing, 0.2 a wall, 1 the agent  |
| 1       | color / 5: 1 a wall's grey, else 0                 |
| 2       | direction of the agent / 3: right, down, left, up  |

Action: one of three, as a one-hot vector: turn left, turn right, go forward.
Task parameter: column and row of the goal, uniform among the cells inside the walls but the first, (1, 1).
Reward: 1 - 0.9 t / horizon on arriving in step t, as in MiniGrid; success, and the episode terminates.
Initial state: the agent in the first cell, looking right.
Source: Chevalier-Boisvert et al. 2023, MiniGrid's Empty room; its goal is hidden here, and drawn from all cells.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField, require
from metarl.envs.gymnasium_tasks import Env, GymTasks
from metarl.envs.registry import TaskDistribution


@dataclass(frozen=True)
class MiniGridGoal(GymTasks):
    """Presets: empty5, empty6, empty8, by the size of the room with its walls."""

    name: ClassVar[str] = "minigrid_goal"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    success = "success"

    horizon: int = 20
    """Steps of an episode."""
    size: int = 5
    """Cells of a row of the room, its walls among them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "size", at_least=4, at_most=25)

    @property
    def spec(self) -> EnvSpec:
        """Said here, so that the task can be named where MiniGrid is not installed."""
        shape = (self.size, self.size, 3)
        return EnvSpec(
            obs_dim=self.size**2 * 3,
            action_dim=3,
            horizon=self.horizon,
            terminates=True,
            has_success=True,
            discrete=True,
            obs_shape=shape,
        )

    def env(self) -> Env:
        if find_spec("minigrid") is None:
            raise BadField("task is 'minigrid_goal': MiniGrid is not installed, use pip install minigrid")
        from metarl.envs.small.minigrid_room import Room

        return Room(self.size, self.horizon)

    def set_task(self, env: Any, task: NDArray[Any]) -> None:
        env.goal = (int(task[0]), int(task[1]))

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        inside = self.size - 2
        cell = torch.randint(1, inside**2, (num_tasks,), generator=generator, device=generator.device)
        return 1.0 + torch.stack([cell % inside, cell // inside], dim=1)

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"go to column {int(task[0])}, row {int(task[1])}"


MiniGridGoal.presets = {
    "empty5": MiniGridGoal(),
    "empty6": MiniGridGoal(size=6, horizon=30),
    "empty8": MiniGridGoal(size=8, horizon=60),
}
