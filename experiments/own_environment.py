"""An environment of Gymnasium as a task distribution, complete in this file: a boat on a river of unknown current.

The environment knows nothing of meta-learning; three functions below it say what the tasks are: how it is built, which
tasks there are, how one is set. Any environment that Gymnasium's API describes will do, of somebody else's as well:
:mod:`metarl.envs.gymnasium_tasks` says what is made of its spaces.

    metarl train river --code experiments/own_environment.py --name river
    metarl evaluate runs/river --code experiments/own_environment.py
    metarl video runs/river --code experiments/own_environment.py
"""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl import MAML, RL2, Experiment, GaussianMLP, RecurrentPolicy, presets
from metarl.envs import GymTasks

SPEED, ARRIVED, WIDTH = 0.1, 0.15, 1.0  # a step; from the pier; of the river from its middle
PIXELS = 120


class River(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """A boat is to reach the pier across; the current, which it does not see, carries it off."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as in gymnasium.Env
    observation_space = spaces.Dict(
        {"boat": spaces.Box(-9, 9, (2,), np.float32), "ashore": spaces.Discrete(2)}  # flattened to 4 numbers
    )
    action_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
    render_mode = "rgb_array"
    current: NDArray[Any] = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.boat = np.array([-WIDTH, self.np_random.uniform(-0.2, 0.2)])
        return self._look(), {}

    def step(self, action: NDArray[Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.boat = np.clip(self.boat + SPEED * (action + self.current), -2, 2)
        away = float(np.linalg.norm(self.boat - [WIDTH, 0.0]))
        return self._look(), -away, False, False, {"arrived": away < ARRIVED}

    def _look(self) -> dict[str, Any]:
        return {"boat": self.boat.astype(np.float32), "ashore": int(abs(self.boat[0]) >= WIDTH)}

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        picture = np.full((PIXELS, PIXELS, 3), (120, 170, 220), np.uint8)
        picture[:, : PIXELS // 4] = picture[:, -PIXELS // 4 :] = (120, 180, 110)
        for place, color in (((WIDTH, 0.0), (200, 80, 60)), (self.boat, (30, 30, 30))):
            column, row = np.clip((np.array(place) / 4 + 0.5) * PIXELS, 3, PIXELS - 4).astype(int)
            picture[row - 3 : row + 4, column - 3 : column + 4] = color
        return picture


@dataclass(frozen=True)
class RiverTasks(GymTasks):
    """Task parameter: the current [speeds], uniform in [-1, 1]²; no observation shows it."""

    name = "river"
    terminates = False
    success = "arrived"  # the key of info that says so

    horizon: int = 40
    """Steps of an episode."""

    def env(self) -> gymnasium.Env[Any, Any]:
        return River()

    def set_task(self, env: Any, task: NDArray[np.float32]) -> None:
        env.current = task.astype(float)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return 2 * torch.rand(num_tasks, 2, generator=generator) - 1


GRU = RL2(policy=RecurrentPolicy(memory="gru", memory_size=64), learning_rate=3e-3, epochs=4, minibatches=2)
presets.add({"default": Experiment(RiverTasks(), GRU, num_tasks=40, num_envs=1, episodes=2, iterations=40)})
MLP = MAML(policy=GaussianMLP((64, 64)), inner_lr=0.1)
presets.add({"default": Experiment(RiverTasks(), MLP, num_tasks=10, num_envs=10, episodes=10, iterations=40)})
