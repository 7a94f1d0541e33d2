"""A point that must find a goal on a half circle around it, paid only near the goal (Rakelly et al. 2019, section 6.3).

Observation: position x, y; it starts at the origin. Action: displacement in [-1, 1]^2, times ``max_step``. Task
parameter: goal (cos a, sin a).

| preset      | angle a of the goal                                  | reward                                  | steps |
|-------------|------------------------------------------------------|-----------------------------------------|-------|
| pearl       | one of 100 from 0 to pi, 80 to train on, 20 to test  | 1 - distance within ``radius``, else 0  | 20    |
| pearl_dense | the same                                             | -distance                               | 20    |
| varibad     | U[0, pi]                                             | as pearl                                | 100   |

PEARL (katerakelly/oyster, ``point_robot.py``, ``sparse-point-robot.json``) acts and is tested on the sparse reward,
while its critic is trained on the dense one; VariBAD (lmzintgraf/varibad, ``point_robot.py``) knows the sparse one
alone. Success: within ``radius`` of the goal. Episodes never terminate.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal, Signals
from metarl.envs.fields import BadField, require
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds

SHUFFLE = 1337  # oyster's seed of the order of its goals; the last fifth of them is for tests


@dataclass(frozen=True)
class HalfCircle(BatchedTasks):
    """Presets: pearl (sparse, 80 and 20 goals), pearl_dense (what its critic learns from), varibad (sparse, longer)."""

    name: ClassVar[str] = "half_circle"
    presets: ClassVar[Mapping[str, TaskDistribution]]

    reward: Literal["sparse", "dense"] = "sparse"
    """See the table of the module."""
    radius: float = 0.2
    """Distance to the goal within which the sparse reward is paid."""
    max_step: float = 0.1
    """Displacement of a full action along each axis."""
    num_goals: int = 0
    """Goals at even angles, four fifths of them to train on and the others to test on; 0: goals anywhere."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "radius", "max_step", above=0)
        require(self, "num_goals", at_least=0, at_most=10_000)
        if 0 < self.num_goals < 5:
            raise BadField(f"num_goals is {self.num_goals}: use at least 5, of which one is for tests, or 0")

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(obs_dim=2, action_dim=2, horizon=self.horizon, terminates=False, has_success=True)

    def signals(self) -> Signals:
        moves = (Signal(f"displacement {axis}", "", -self.max_step, self.max_step) for axis in "xy")
        return Signals((Signal("position x"), Signal("position y")), tuple(moves))

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"find the goal at {math.degrees(math.atan2(float(task[1]), float(task[0]))):.0f} degrees"

    @property
    def num_test_tasks(self) -> int | None:
        return len(self._goals()[1]) if self.num_goals else None

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        if self.num_goals:
            train, _ = self._goals()
            chosen = torch.randint(len(train), (num_tasks,), generator=generator, device=generator.device)
            return train.to(generator.device)[chosen]
        return on_circle(math.pi * torch.rand(num_tasks, generator=generator, device=generator.device))

    def published_tasks(self, num_tasks: int) -> Float[Tensor, "task 2"] | None:
        """PEARL's test goals, which training never draws."""
        return self._goals()[1][:num_tasks] if self.num_goals else None

    def _goals(self) -> tuple[Float[Tensor, "train 2"], Float[Tensor, "test 2"]]:
        order = np.arange(self.num_goals)
        np.random.RandomState(SHUFFLE).shuffle(order)  # as oyster shuffles its goals
        goals = on_circle(torch.linspace(0, math.pi, self.num_goals, dtype=torch.float64)[order]).float()
        num_train = self.num_goals - self.num_goals // 5
        return goals[:num_train], goals[num_train:]

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        return HalfCircleWorlds(self, num_worlds, device)


class HalfCircleWorlds:
    """:class:`metarl.envs.worlds.Worlds` of such points."""

    def __init__(self, task: HalfCircle, num_worlds: int, device: torch.device) -> None:
        self.task = task
        self.position = torch.zeros(num_worlds, 2, device=device)
        self.goal = torch.zeros(num_worlds, 2, device=device)
        self._nowhere = torch.zeros(num_worlds, dtype=torch.bool, device=device)

    def seed(self, seed: int) -> None:
        """As :class:`metarl.envs.worlds.SeededWorlds`: nothing here draws."""

    def set_tasks(self, task: Float[Tensor, "world 2"]) -> None:
        self.goal = task

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        self.position = self.position.masked_fill(mask[:, None], 0.0)

    def observe(self) -> Float[Tensor, "world 2"]:
        return self.position.clone()

    def step(self, action: Float[Tensor, "world 2"]) -> Outcome:
        self.position = self.position + self.task.max_step * action
        distance = (self.position - self.goal).norm(dim=1)
        near = distance <= self.task.radius
        reward = (1 - distance).where(near, 0.0) if self.task.reward == "sparse" else -distance
        return Outcome(reward, self._nowhere, near, self._nowhere)

    def state_dict(self) -> dict[str, Tensor]:
        return {"position": self.position.clone(), "goal": self.goal.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.position, self.goal = (state[name].to(self.position.device).clone() for name in ("position", "goal"))


def on_circle(angle: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    """The points of the unit circle at these angles."""
    return torch.stack([angle.cos(), angle.sin()], dim=1)


HalfCircle.presets = {
    "pearl": HalfCircle(horizon=20, num_goals=100),
    "pearl_dense": HalfCircle(horizon=20, num_goals=100, reward="dense"),
    "varibad": HalfCircle(),
}
