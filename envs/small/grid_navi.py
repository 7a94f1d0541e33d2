"""A grid in which one cell, that nobody sees, is the goal (Zintgraf et al. 2020, VariBAD, section 5.1).

Observation: column x and row y of the agent, from 0 (left, bottom) on. Task parameter: column and row of the goal,
uniform among the cells but the start and its three neighbours. Action: one of five, as a one-hot vector: stay, go up,
right, down, left; a step off the grid stays. Reward: 1 for a step that ends in the goal, else -0.1. Initial state:
(0, 0), in every episode. Nothing ends an episode but its 15 steps; the paper's trials have four episodes.
Source: lmzintgraf/varibad, ``environments/navigation/gridworld.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal, Signals
from metarl.envs.fields import require
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds

ACTIONS = ("stay", "up", "right", "down", "left")
MOVES = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])
REWARD, COST = 1.0, -0.1
PIXELS, LINE = 80, 2  # of a cell, of the line around it
PAPER, INK, GOAL, SEEN, START = (255, 255, 255), (27, 27, 27), (200, 85, 61), (185, 196, 207), (230, 230, 230)


@dataclass(frozen=True)
class GridNavi(BatchedTasks):
    """Preset: varibad."""

    name: ClassVar[str] = "grid_navi"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    horizon: int = 15
    """Steps of an episode."""
    cells: int = 5
    """Cells of a row, and of a column."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "cells", at_least=3, at_most=100)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=2, action_dim=5, horizon=self.horizon, terminates=False, has_success=False, discrete=True
        )

    @property
    def frames_per_second(self) -> float:
        """As :class:`metarl.envs.camera.PicturedTask`."""
        return 3.0

    def signals(self) -> Signals:
        return Signals((Signal("column"), Signal("row")), tuple(Signal(name) for name in ACTIONS))

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"go to column {int(task[0])}, row {int(task[1])}"

    def goals(self, device: torch.device | str = "cpu") -> Float[Tensor, "goal 2"]:
        """All tasks there are, equally likely, column by column."""
        line = torch.arange(self.cells, device=device)
        cells = torch.cartesian_prod(line, line)
        return cells[(cells > 1).any(1)].float()

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        goals = self.goals(generator.device)
        return goals[torch.randint(len(goals), (num_tasks,), generator=generator, device=generator.device)]

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        return GridWorlds(self.cells, num_worlds, device)


class GridWorlds:
    """:class:`metarl.envs.worlds.Worlds` and :class:`metarl.envs.camera.PicturedWorlds` of grids; nothing draws."""

    def __init__(self, cells: int, num_worlds: int, device: torch.device) -> None:
        self.cells = cells
        self.position = torch.zeros(num_worlds, 2, device=device)
        self.goal = torch.zeros(num_worlds, 2, device=device)
        self.visited = torch.zeros(num_worlds, cells * cells, dtype=torch.bool, device=device)
        """Cells of this episode, column by column, for pictures."""
        self._moves = MOVES.to(device)
        self._nowhere = torch.zeros(num_worlds, dtype=torch.bool, device=device)

    def seed(self, seed: int) -> None:
        """As :class:`metarl.envs.worlds.SeededWorlds`: nothing here draws."""

    def set_tasks(self, task: Float[Tensor, "world 2"]) -> None:
        self.goal = task

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        self.position = self.position.masked_fill(mask[:, None], 0.0)
        self.visited = self.visited.masked_fill(mask[:, None], False)
        self._note()

    def observe(self) -> Float[Tensor, "world 2"]:
        return self.position.clone()

    def step(self, action: Float[Tensor, "world 5"]) -> Outcome:
        self.position = (self.position + self._moves[action.argmax(1)]).clamp(0.0, self.cells - 1.0)
        self._note()
        arrived = (self.position == self.goal).all(1)
        reward = torch.where(arrived, REWARD, COST)
        return Outcome(reward, self._nowhere, self._nowhere, self._nowhere)

    def picture(self, world: int) -> NDArray[np.uint8]:
        """Goal, agent, start, and the cells of this episode, [height, width, RGB]."""
        (x, y), goal = self.position[world].long().tolist(), tuple(self.goal[world].long().tolist())
        visited = self.visited[world].view(self.cells, self.cells).tolist()
        canvas = np.full((self.cells * PIXELS, self.cells * PIXELS, 3), INK, np.uint8)
        for column in range(self.cells):
            for row in range(self.cells):
                cell = tile(canvas, column, row)[LINE:-LINE, LINE:-LINE]
                cell[:] = SEEN if visited[column][row] else START if column == row == 0 else PAPER
                if (column, row) == goal:
                    cell[8:-8, 8:-8] = GOAL
        center = np.arange(PIXELS) - (PIXELS - 1) / 2
        tile(canvas, x, y)[np.hypot(*np.meshgrid(center, center)) < PIXELS / 4] = INK
        return canvas

    def _note(self) -> None:
        here = (self.position[:, 0] * self.cells + self.position[:, 1]).long()
        self.visited = self.visited.scatter(1, here[:, None], True)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: getattr(self, name).clone() for name in ("position", "goal", "visited")}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name in ("position", "goal", "visited"):
            setattr(self, name, state[name].to(self.position.device).clone())


def tile(canvas: NDArray[np.uint8], column: int, row: int) -> NDArray[np.uint8]:
    """The pixels of a cell; row 0 is at the bottom."""
    top = len(canvas) - (row + 1) * PIXELS
    return canvas[top : top + PIXELS, column * PIXELS : (column + 1) * PIXELS]


GridNavi.presets = {"varibad": GridNavi()}
