"""A point on a plane that must find a goal it cannot see (Finn et al. 2017, section 5.3).

Observation: position x, y. Action: displacement in [-1, 1]^2, times ``max_step``. Task parameter: goal (x, y).

| preset   | goal           | start        | reward                                                       | ends    |
|----------|----------------|--------------|--------------------------------------------------------------|---------|
| maml2017 | U[-.5, .5]^2   | origin       | -distance to the goal, after the step                        | at goal |
| corner   | (+-2, +-2)     | U[-.2, .2]^2 | progress to the goal where it is the nearest corner, else 0  | never   |

The corner reward is 0 within an L1 distance of 0.5 of the origin, so the first rollouts must explore
(jonasrothfuss/ProMP, ``point_env_2d_corner.py``). It can be gamed, as the original's: on the border of two corners'
quadrants a step into the goal's pays its progress and the step back costs nothing, so going to and fro for an episode
earns more than 8, where the straight way to the goal earns 2.8 at most. Success tells them apart: at the goal
(maml2017: |dx|, |dy| < 0.01, the terminal state of cbfinn/maml_rl ``point_env_randgoal.py``; corner: within 0.5 of it,
our choice, the source defines none).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Signal, Signals
from metarl.envs.draws import uniform_like
from metarl.envs.fields import require
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds

CORNERS = torch.tensor([[-2.0, -2.0], [2.0, -2.0], [-2.0, 2.0], [2.0, 2.0]])
DEAD_ZONE = 0.5  # L1 radius around the origin where the corner reward is silent
CORNER_RADIUS = 0.5
GOAL_TOLERANCE = 0.01


@dataclass(frozen=True)
class Navigation(BatchedTasks):
    """Presets: maml2017 (dense reward, goals anywhere in a square), corner (ProMP's sparse four corners)."""

    name: ClassVar[str] = "navigation"
    presets: ClassVar[Mapping[str, TaskDistribution]]
    parameter_names: ClassVar[tuple[str, ...]] = ("goal x", "goal y")

    variant: Literal["dense", "corner"] = "dense"
    """Reward, goals and start, see the table of the module."""
    max_step: float = 0.1
    """Displacement of a full action."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "max_step", above=0)

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(
            obs_dim=2,
            action_dim=2,
            horizon=self.horizon,
            terminates=self.variant == "dense",
            has_success=True,
        )

    def signals(self) -> Signals:
        moves = (Signal(f"displacement {axis}", "", -self.max_step, self.max_step) for axis in "xy")
        return Signals((Signal("position x"), Signal("position y")), tuple(moves))

    def in_words(self, task: Float[Tensor, "2"]) -> str:
        return f"go to ({float(task[0]):.2f}, {float(task[1]):.2f})"

    def sample(self, num_tasks: int, generator: torch.Generator) -> Float[Tensor, "task 2"]:
        if self.variant == "dense":
            return torch.rand(num_tasks, 2, generator=generator, device=generator.device) - 0.5
        corner = torch.randint(4, (num_tasks,), generator=generator, device=generator.device)
        return CORNERS.to(generator.device)[corner]

    def published_tasks(self, num_tasks: int) -> Float[Tensor, "task 2"] | None:
        if self != self.presets["maml2017"]:
            return None
        draws = np.random.RandomState(1).uniform(-0.5, 0.5, size=(num_tasks, 2))  # maml_rl: test_maml_point.py
        return torch.from_numpy(draws).float()

    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        return PointWorlds(self, num_worlds, device)


class PointWorlds:
    """:class:`metarl.envs.worlds.Worlds` of points."""

    def __init__(self, task: Navigation, num_worlds: int, device: torch.device) -> None:
        self.task = task
        self.position = torch.zeros(num_worlds, 2, device=device)
        self.goal = torch.zeros(num_worlds, 2, device=device)
        self._corners = CORNERS.to(device)
        self._nowhere = torch.zeros(num_worlds, dtype=torch.bool, device=device)

    def seed(self, seed: int) -> None:
        """As :class:`metarl.envs.worlds.SeededWorlds`: nothing here draws."""

    def set_tasks(self, task: Float[Tensor, "world 2"]) -> None:
        self.goal = task

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        start = torch.zeros_like(self.position)
        if self.task.variant == "corner":
            start = uniform_like(start, generator) * 0.4 - 0.2
        self.position = torch.where(mask[:, None], start, self.position)

    def observe(self) -> Float[Tensor, "world 2"]:
        return self.position.clone()

    def step(self, action: Float[Tensor, "world 2"]) -> Outcome:
        before = self.position
        self.position = before + self.task.max_step * action
        away = self.position - self.goal
        distance = away.norm(dim=1)
        if self.task.variant == "dense":
            arrived = (away.abs() < GOAL_TOLERANCE).all(1)
            return Outcome(-distance, arrived, arrived, self._nowhere)
        progress = (before - self.goal).norm(dim=1) - distance
        nearest = (self.position[:, None] - self._corners).norm(dim=2).amin(1)
        silent = (self.position.abs().sum(1) < DEAD_ZONE) | (distance > nearest + 1e-6)
        return Outcome(progress.masked_fill(silent, 0.0), self._nowhere, distance < CORNER_RADIUS, self._nowhere)

    def state_dict(self) -> dict[str, Tensor]:
        return {"position": self.position.clone(), "goal": self.goal.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.position, self.goal = (state[name].to(self.position.device).clone() for name in ("position", "goal"))


Navigation.presets = {
    "maml2017": Navigation(),
    "corner": Navigation(variant="corner", max_step=0.2),
}
