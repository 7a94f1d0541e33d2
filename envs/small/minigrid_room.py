"""MiniGrid's empty room with a goal that its observations do not show; only this file imports MiniGrid."""

from typing import Any

import numpy as np
from gymnasium import spaces
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Goal
from minigrid.minigrid_env import MiniGridEnv
from numpy.typing import NDArray

LARGEST = np.array([OBJECT_TO_IDX["agent"], max(COLOR_TO_IDX.values()), 3], np.float32)
NEVER = 2**31 - 1  # steps; the time limit is the task's


def mission() -> str:
    return "find the goal"


class Room(MiniGridEnv):
    """See :mod:`metarl.envs.small.minigrid_goal`."""

    def __init__(self, size: int, horizon: int) -> None:
        self.goal = (size - 2, size - 2)
        self._horizon = horizon
        super().__init__(
            MissionSpace(mission), grid_size=size, max_steps=NEVER, render_mode="rgb_array", highlight=False
        )
        self.action_space = spaces.Discrete(3)
        self.observation_space = spaces.Box(0.0, 1.0, (size, size, 3), np.float32)

    def _gen_grid(self, width: int, height: int) -> None:
        self.grid = Grid(width, height)
        self.grid.wall_rect(0, 0, width, height)
        self.agent_pos, self.agent_dir = (1, 1), 0

    def gen_obs(self) -> NDArray[np.float32]:
        """[row, column, channel], the whole room."""
        cells = self.grid.encode()
        cells[self.agent_pos] = OBJECT_TO_IDX["agent"], COLOR_TO_IDX["red"], self.agent_dir
        return (cells.transpose(1, 0, 2) / LARGEST).astype(np.float32)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        obs, *_ = super().step(action)
        arrived = tuple(int(x) for x in self.agent_pos) == self.goal
        reward = 1 - 0.9 * self.step_count / self._horizon if arrived else 0.0
        return obs, reward, arrived, False, {"success": arrived}

    def render(self) -> Any:
        """The room with its goal, which the agent does not see."""
        self.grid.set(*self.goal, Goal())
        picture = super().render()
        self.grid.set(*self.goal, None)
        return picture
