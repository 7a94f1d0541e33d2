"""Time limits, automatic resets and their bookkeeping, the same for every kind of world."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import EnvSpec, Step
from metarl.envs.registry import TaskDistribution


class Outcome(NamedTuple):
    """What one step of the dynamics brought, world by world."""

    reward: Float[Tensor, " world"]
    terminated: Bool[Tensor, " world"]
    success: Bool[Tensor, " world"]
    diverged: Bool[Tensor, " world"]
    """The simulation failed in this world: the step carries no information."""


@runtime_checkable
class Worlds(Protocol):
    """Dynamics of ``world = task * num_envs + env`` worlds, without any notion of episodes."""

    def set_tasks(self, task: Float[Tensor, "world ..."]) -> None:
        """Gives each world its task parameter."""

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        """Draws a new initial state for the worlds of ``mask``; the others keep their bits."""

    def observe(self) -> Float[Tensor, "world obs"]:
        """The observation of the current state, in a new tensor."""

    def step(self, action: Float[Tensor, "world act"]) -> Outcome:
        """Advances every world; ``action`` lies in [-1, 1]."""

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restores :meth:`state_dict` exactly."""


@runtime_checkable
class RestingWorlds(Protocol):
    """Worlds that can be left out of a step."""

    def rest(self, mask: Bool[Tensor, " world"]) -> None:
        """The worlds of ``mask``, and no others, need not move until they are reset."""


class BatchedTaskEnv:
    """:class:`metarl.envs.api.TaskEnv` over any :class:`Worlds`: one clock a world, episodes restarted one by one."""

    def __init__(
        self, worlds: Worlds, spec: EnvSpec, num_tasks: int, num_envs: int, *, seed: int, device: str = "cpu"
    ) -> None:
        self.worlds, self.spec = worlds, spec
        self.num_tasks, self.num_envs = num_tasks, num_envs
        self.device = torch.device(device)
        self.clock = torch.zeros(num_tasks, num_envs, dtype=torch.int64, device=self.device)
        self.num_diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        self._overflowed_before = 0  # the snapshot that was loaded
        self._generator = torch.Generator(self.device).manual_seed(seed)

    @property
    def num_overflowed(self) -> int:
        return self._overflowed_before + int(getattr(self.worlds, "num_overflowed", 0))

    def set_tasks(self, task: Float[Tensor, "task ..."]) -> None:
        if len(task) != self.num_tasks:
            raise ValueError(f"{len(task)} tasks were given to an environment of {self.num_tasks}")
        self.worlds.set_tasks(task.to(self.device).repeat_interleave(self.num_envs, dim=0))

    def reset(self) -> Float[Tensor, "task env obs"]:
        everywhere = torch.ones(self.num_tasks * self.num_envs, dtype=torch.bool, device=self.device)
        self.worlds.reset(everywhere, self._generator)
        self.clock.zero_()
        return self._by_task(self.worlds.observe())

    def step(self, action: Float[Tensor, "task env act"]) -> Step:
        outcome = self.worlds.step(action.flatten(0, 1).clamp(-1.0, 1.0))
        self.clock += 1
        next_obs = self._by_task(self.worlds.observe())
        terminated, diverged = self._by_task(outcome.terminated), self._by_task(outcome.diverged)
        truncated = (self.clock >= self.spec.horizon) | diverged
        ended = terminated | truncated
        obs = next_obs
        if self.device.type != "cpu" or ended.any():  # to ask a GPU costs more than a reset of no world
            self.num_diverged += diverged.sum()
            self.worlds.reset(ended.flatten(), self._generator)
            self.clock.masked_fill_(ended, 0)
            obs = self._by_task(self.worlds.observe())
        reward, success = self._by_task(outcome.reward), self._by_task(outcome.success)
        return Step(obs, next_obs, reward, terminated, truncated, success, diverged)

    def rest(self, worlds: Bool[Tensor, "task env"]) -> None:
        if isinstance(self.worlds, RestingWorlds):
            self.worlds.rest(worlds.flatten())

    def state_dict(self) -> dict[str, Any]:
        return {
            "worlds": self.worlds.state_dict(),
            "clock": self.clock.clone(),
            "generator": self._generator.get_state(),
            "num_diverged": self.num_diverged.clone(),
            "num_overflowed": self.num_overflowed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.worlds.load_state_dict(state["worlds"])
        self.clock.copy_(state["clock"])
        self._generator.set_state(state["generator"])
        self.num_diverged.fill_(state["num_diverged"])
        self._overflowed_before += state["num_overflowed"] - self.num_overflowed

    def _by_task(self, x: Tensor) -> Tensor:
        return x.unflatten(0, (self.num_tasks, self.num_envs))


@dataclass(frozen=True)
class BatchedTasks(TaskDistribution):
    """A task distribution that says what its worlds are; their environments are :class:`BatchedTaskEnv`."""

    @abstractmethod
    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        """The worlds of one environment, from the options of :meth:`make`."""

    def make(
        self,
        num_tasks: int,
        num_envs: int,
        *,
        seed: int,
        device: str = "cpu",
        physics: str = "auto",
        num_threads: int = 0,
    ) -> BatchedTaskEnv:
        worlds = self.worlds(
            num_tasks * num_envs, seed=seed, device=torch.device(device), physics=physics, num_threads=num_threads
        )
        return BatchedTaskEnv(worlds, self.spec, num_tasks, num_envs, seed=seed, device=device)
