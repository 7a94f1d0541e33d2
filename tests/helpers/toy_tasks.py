"""Tasks small enough that the best return is known exactly. They have no ``name``, so the product does not list them.

An episode of the first two is one step, so a trial of n steps is n episodes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.worlds import BatchedTasks, Outcome, Worlds


class ToyWorlds:
    """Worlds that count the steps of an episode, and the episodes since they were given their task."""

    def __init__(self, num_worlds: int) -> None:
        self.task = torch.zeros(num_worlds)
        self.episode = torch.full((num_worlds,), -1)
        self.age = torch.zeros(num_worlds, dtype=torch.int64)
        self.never = torch.zeros(num_worlds, dtype=torch.bool)

    def set_tasks(self, task: Tensor) -> None:
        self.task = task
        self.episode = torch.full_like(self.episode, -1)

    def reset(self, mask: Tensor, generator: torch.Generator) -> None:
        self.episode = self.episode + mask
        self.age = self.age.masked_fill(mask, 0)

    def state_dict(self) -> dict[str, Tensor]:
        return {"task": self.task.clone(), "episode": self.episode.clone(), "age": self.age.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.task, self.episode, self.age = state["task"], state["episode"], state["age"]


# --- one look at the risky arm tells which is best -------------------------------------------------


@dataclass(frozen=True)
class SafeRisky(BatchedTasks):
    """Arm 0 pays ``safe``; arm 1 pays 1 or 0, by a fair coin that is tossed once a trial (task parameter).

    Trying the risky arm first costs ``safe`` - .5 at once, and repays it in every later episode: a learner whose
    credit stops at the end of an episode never does.
    """

    horizon: int = 1
    safe: float = 0.55

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(1, 2, self.horizon, terminates=False, has_success=False, discrete=True)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (num_tasks,), generator=generator).float()

    def worlds(self, num_worlds: int, **_: Any) -> Worlds:
        return SafeRiskyWorlds(self.safe, num_worlds)

    def optimum(self, episodes: int) -> float:
        """Risky once, .5; then in half of the trials 1 each time, in the other half ``safe``."""
        return 0.5 + (episodes - 1) * (0.5 * 1 + 0.5 * self.safe)

    def myopic(self, episodes: int) -> float:
        """Never risky."""
        return episodes * self.safe


class SafeRiskyWorlds(ToyWorlds):
    def __init__(self, safe: float, num_worlds: int) -> None:
        super().__init__(num_worlds)
        self.safe = safe

    def observe(self) -> Tensor:
        return torch.ones(len(self.task), 1)

    def step(self, action: Tensor) -> Outcome:
        return Outcome(torch.where(action[:, 1] > 0.5, self.task, self.safe), self.never, self.never, self.never)


# --- only memory can answer ------------------------------------------------------------------------


@dataclass(frozen=True)
class DelayedRecall(BatchedTasks):
    """Task parameter: a cue, 0 or 1, observed in episode 1. Actions: name 0, name 1, say nothing. Naming the cue pays 1
    in episode 3; in episodes 1 and 2 saying anything costs .5.

    Observation: (+1 or -1 in episode 1, 1 in episode 3). Whoever remembers earns 1, whoever does not .5. A policy
    could hand the cue on from episode to episode by its actions, which it is fed; but two words in half of the trials
    cost as much as knowing it brings.
    """

    horizon: int = 1

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(2, 3, self.horizon, terminates=False, has_success=False, discrete=True)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return torch.randint(2, (num_tasks,), generator=generator).float()

    def worlds(self, num_worlds: int, **_: Any) -> Worlds:
        return DelayedRecallWorlds(num_worlds)


class DelayedRecallWorlds(ToyWorlds):
    def observe(self) -> Tensor:
        cue = (2 * self.task - 1).where(self.episode == 0, 0.0)
        return torch.stack([cue, (self.episode == 2).float()], dim=1)

    def step(self, action: Tensor) -> Outcome:
        said = action.argmax(1)
        right = (said == self.task.long()).float()
        reward = torch.where(self.episode == 2, right, -0.5 * (said < 2).float())
        return Outcome(reward, self.never, self.never, self.never)


# --- every number says where it comes from ---------------------------------------------------------


@dataclass(frozen=True)
class Echo(BatchedTasks):
    """Reward: 1000 episode + step, both from 1, times ``pay``. Observation: (episode, step), both from 0.

    Task parameter: the step at which its episodes terminate; from ``horizon`` on they are truncated instead.
    """

    horizon: int = 3
    pay: float = 1.0
    discrete: bool = True

    @property
    def spec(self) -> EnvSpec:
        return EnvSpec(2, 2, self.horizon, terminates=True, has_success=False, discrete=self.discrete)

    def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
        return torch.randint(1, self.horizon + 2, (num_tasks,), generator=generator).float()

    def worlds(self, num_worlds: int, **_: Any) -> Worlds:
        return EchoWorlds(self.pay, num_worlds)


class EchoWorlds(ToyWorlds):
    def __init__(self, pay: float, num_worlds: int) -> None:
        super().__init__(num_worlds)
        self.pay = pay

    def observe(self) -> Tensor:
        return torch.stack([self.episode, self.age], dim=1).to(torch.get_default_dtype())

    def step(self, action: Tensor) -> Outcome:
        self.age = self.age + 1
        reward = self.pay * (1000 * (self.episode + 1) + self.age).to(torch.get_default_dtype())
        return Outcome(reward, self.age >= self.task, self.never, self.never)
