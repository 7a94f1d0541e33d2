"""Time limits, automatic resets and their bookkeeping, the same for every kind of world."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from gymnasium.error import ResetNeeded
from jaxtyping import Bool, Float
from torch import Tensor

from metarl.envs.api import FAULTS, EnvSpec, Step
from metarl.envs.draws import seed_of
from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.envs.soundness import all_sound, sound

MOST_WORLDS = 2**20  # tasks, or worlds of a task


class Outcome(NamedTuple):
    """What one step of the dynamics brought, world by world, on the device of the worlds."""

    reward: Float[Tensor, " world"]
    """In float32; NaN or an infinite number spoils the episode as ``diverged`` does."""
    terminated: Bool[Tensor, " world"]
    """The MDP ended, for good: no return follows. The time limit is not the dynamics' to tell."""
    success: Bool[Tensor, " world"]
    """The task is solved in the state that the step led to; False where a task does not define it."""
    diverged: Bool[Tensor, " world"]
    """The simulation failed in this world: the step carries no information."""


@runtime_checkable
class Worlds(Protocol):
    """Dynamics of ``world = task * num_envs + env`` worlds, without any notion of episodes."""

    def set_tasks(self, task: Float[Tensor, "world ..."]) -> None:
        """Gives each world its task parameter."""

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        """Draws a new initial state for the worlds of ``mask``; the others keep their bits.

        It draws for all worlds whatever the mask, so that no world's numbers depend on which others are reset.
        """

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


@runtime_checkable
class SeededWorlds(Protocol):
    """Worlds that can be seeded, which costs less than to build them anew."""

    def seed(self, seed: int) -> None:
        """Makes them like new ones of this seed, as far as the next tasks and the next reset do not anyway."""


class BatchedTaskEnv:
    """:class:`metarl.envs.api.TaskEnv` over any :class:`Worlds`: one clock a world, episodes restarted one by one.

    What a world draws depends on the seed, on how often all were reset, and on the steps since, never on other worlds:
    where episodes end at the time limit alone, then and at :meth:`reset` one generator goes on; any other first state
    is drawn by a generator that is seeded for this very step.
    """

    def __init__(
        self, worlds: Worlds, spec: EnvSpec, num_tasks: int, num_envs: int, *, seed: int, device: str = "cpu"
    ) -> None:
        self.worlds, self.spec = worlds, spec
        self.num_tasks, self.num_envs = num_tasks, num_envs
        self.device = torch.device(device)
        self.rebuild: Callable[[], Worlds] | None = None
        """Makes such worlds anew, for copies and pickles of this environment."""
        self.task_shape: tuple[int, ...] | None = None
        """Of the parameter of one task, where it is known."""
        self.restarts = True
        """Whether where an episode ends the next begins in the same step; else :meth:`restart` begins it."""
        self._begin(seed)

    def _begin(self, seed: int) -> None:
        self.clock = torch.zeros(self.num_tasks, self.num_envs, dtype=torch.int64, device=self.device)
        self.num_diverged = torch.zeros((), dtype=torch.int64, device=self.device)
        self.faults = torch.zeros(self.num_tasks, len(FAULTS), dtype=torch.int64, device=self.device)
        self._begun = False
        self._overflowed_before = 0  # the snapshot that was loaded
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self._seed, self._resets, self._steps = seed, 0, 0  # steps: since the last reset of all worlds
        self._restarted = 0  # calls of restart since then
        self._of_step = torch.Generator(self.device)
        self._spoiled = torch.zeros_like(self.clock, dtype=torch.bool)  # worlds whose first observation was bad
        self._resting = torch.zeros_like(self._spoiled)

    def seed(self, seed: int) -> bool:
        """Makes the environment like a new one of this seed, where its worlds can; tells whether they could."""
        if not isinstance(self.worlds, SeededWorlds):
            return False
        self.worlds.seed(seed)
        self._begin(seed)
        self._overflowed_before = -int(getattr(self.worlds, "num_overflowed", 0))
        return True

    @property
    def num_overflowed(self) -> int:
        return self._overflowed_before + int(getattr(self.worlds, "num_overflowed", 0))

    def set_tasks(self, task: Float[Tensor, "task ..."]) -> None:
        if len(task) != self.num_tasks:
            raise BadField(f"{len(task)} tasks were given to an environment of {self.num_tasks}")
        if self.task_shape not in (None, task.shape[1:]):
            raise BadField(f"task has shape {tuple(task.shape)}: use {(self.num_tasks, *(self.task_shape or ()))}")
        self._begun = False
        self.worlds.set_tasks(task.to(self.device).repeat_interleave(self.num_envs, dim=0))
        self.faults.zero_()

    def reset(self) -> Float[Tensor, "task env obs"]:
        everywhere = torch.ones(self.num_tasks * self.num_envs, dtype=torch.bool, device=self.device)
        self.worlds.reset(everywhere, self._generator)
        self._begun = True
        self.clock.zero_()
        self._resets, self._steps, self._restarted = self._resets + 1, 0, 0
        self._resting = torch.zeros_like(self._resting)
        return self._first_obs()

    def step(self, action: Float[Tensor, "task env act"]) -> Step:
        if not self._begun:
            raise ResetNeeded("no episode has begun since the tasks were set: call reset()")
        if action.shape != (*self.clock.shape, self.spec.action_dim):
            raise BadField(f"action has shape {tuple(action.shape)}: use {(*self.clock.shape, self.spec.action_dim)}")
        outcome = self.worlds.step(action.flatten(0, 1).clamp(-1.0, 1.0))
        self.clock += 1
        self._steps += 1
        next_obs = self._by_task(self.worlds.observe())
        reward, terminated, success, diverged = (self._by_task(x) for x in outcome)
        on_gpu = self.device.type != "cpu"  # to ask it costs more than to work out what may be nowhere
        if on_gpu or not self._all_well(next_obs, reward, diverged):
            next_obs, reward, diverged = self._without_bad(next_obs, reward, diverged)
            terminated, success = terminated & ~diverged, success & ~diverged
        truncated = (self.clock >= self.spec.horizon) | diverged
        ended, obs = terminated | truncated, next_obs
        if self.restarts and (on_gpu or self._on_schedule() or ended.any()):
            obs = self._restart(ended, self._drawing())
        return Step(obs, next_obs, reward, terminated, truncated, success, diverged)

    def _all_well(self, next_obs: Tensor, reward: Tensor, failed: Tensor) -> bool:
        """Whether no episode diverged, on the CPU: numpy finds a flag in a third of torch's time."""
        flagged = failed.numpy().any() or self._spoiled.numpy().any()
        return not flagged and all_sound(next_obs) and all_sound(reward)

    def _without_bad(self, next_obs: Tensor, reward: Tensor, failed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Zeros where an observation or a reward is not sound, and the worlds that diverged; counts what failed."""
        unseen, unpaid = ~sound(next_obs).all(-1) | self._spoiled, ~sound(reward)
        found = torch.stack([failed, unseen & ~failed, unpaid & ~unseen & ~failed], dim=2)
        found = (found & ~self._resting.unsqueeze(-1)).sum(1)
        self.faults += found
        self.num_diverged += found.sum()
        next_obs, reward = next_obs.masked_fill(unseen.unsqueeze(-1), 0.0), reward.masked_fill(unpaid | failed, 0.0)
        return next_obs, reward, failed | unseen | unpaid

    def restart(self, worlds: Bool[Tensor, "task env"]) -> Float[Tensor, "task env obs"]:
        """Begins new episodes in these worlds alone, between two steps; returns the observation of every world."""
        if not self._begun:
            raise ResetNeeded("no episode has begun since the tasks were set: call reset()")
        self._restarted += 1
        draws = (self._seed, self._resets, self._steps, self._restarted)
        return self._restart(worlds, self._of_step.manual_seed(seed_of(*draws)))

    def _restart(self, worlds: Bool[Tensor, "task env"], generator: torch.Generator) -> Float[Tensor, "task env obs"]:
        self.worlds.reset(worlds.flatten(), generator)
        self.clock.masked_fill_(worlds, 0)
        self._resting = self._resting & ~worlds
        return self._first_obs()

    def _first_obs(self) -> Float[Tensor, "task env obs"]:
        """Observes, and notes the episodes that are spoiled from the beginning; elsewhere observations are sound."""
        obs = self._by_task(self.worlds.observe())
        if self.device.type == "cpu" and all_sound(obs):
            self._spoiled = torch.zeros_like(self._resting)
            return obs
        self._spoiled = ~sound(obs).all(-1)
        return obs.masked_fill(self._spoiled.unsqueeze(-1), 0.0)

    def _on_schedule(self) -> bool:
        """Whether every world that nothing happened to ends its episode in this step."""
        return not self.spec.terminates and self._steps % self.spec.horizon == 0

    def _drawing(self) -> torch.Generator:
        """What draws the first states of the episodes that begin in this step."""
        if self._on_schedule() or (self.device.type != "cpu" and not self.spec.terminates):
            return self._generator
        return self._of_step.manual_seed(seed_of(self._seed, self._resets, self._steps))

    def rest(self, worlds: Bool[Tensor, "task env"]) -> None:
        self._resting = worlds
        if isinstance(self.worlds, RestingWorlds):
            self.worlds.rest(worlds.flatten())

    def state_dict(self) -> dict[str, Any]:
        return {
            "worlds": self.worlds.state_dict(),
            "clock": self.clock.clone(),
            "generator": self._generator.get_state(),
            "draws": {"seed": self._seed, "resets": self._resets, "steps": self._steps, "restarted": self._restarted},
            "spoiled": self._spoiled.clone(),
            "num_diverged": self.num_diverged.clone(),
            "num_overflowed": self.num_overflowed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.worlds.load_state_dict(state["worlds"])
        self._begun = True
        self.clock.copy_(state["clock"])
        self._generator.set_state(state["generator"])
        draws = state.get("draws", {})  # checkpoints had none while one generator drew everything
        self._seed, self._resets = draws.get("seed", self._seed), draws.get("resets", 0)
        self._steps = draws.get("steps", int(self.clock.max()))
        self._restarted = draws.get("restarted", 0)
        self._spoiled = state.get("spoiled", torch.zeros_like(self._spoiled)).to(self.device)
        self._resting = torch.zeros_like(self._resting)
        self.num_diverged.fill_(state["num_diverged"])
        self._overflowed_before += state["num_overflowed"] - self.num_overflowed

    def __getstate__(self) -> dict[str, Any]:
        """For ``copy`` and ``pickle``: all but the worlds, which are made anew and continue from their state."""
        if self.rebuild is None:
            raise TypeError("this environment was not built by its distribution's make: it has no recipe to copy it by")
        return vars(self) | {"worlds": self.worlds.state_dict(), "_overflowed_before": self.num_overflowed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.worlds = state["rebuild"]()
        self.worlds.load_state_dict(state["worlds"])

    def _by_task(self, x: Tensor) -> Tensor:
        return x.view(self.num_tasks, self.num_envs, *x.shape[1:])


@dataclass(frozen=True)
class BatchedTasks(TaskDistribution):
    """A task distribution that says what its worlds are; their environments are :class:`BatchedTaskEnv`.

    To define one: ``name``, ``spec``, ``sample`` and :meth:`worlds`; fields of the dataclass are options.
    """

    joinable: ClassVar[bool] = False
    """Whether several seeds may share its worlds: nothing in them draws but resets, by :func:`metarl.envs.api.drawn`,
    and the state of a world is a row of ``state_dict``."""

    @abstractmethod
    def worlds(self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int) -> Worlds:
        """The worlds of one environment, from the options of :meth:`make`.

        Args:
            num_worlds: tasks times worlds a task.
            seed: of a generator of the worlds' own, where their steps draw; resets are given another.
            device: where observations, rewards and flags live.
            physics, num_threads: what :meth:`make` was given, for those that simulate.
        """

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
        for name, count in (("num_tasks", num_tasks), ("num_envs", num_envs)):
            if not isinstance(count, Integral) or not 1 <= count <= MOST_WORLDS:
                raise BadField(f"{name} is {count}: use at least 1 and at most {MOST_WORLDS}")
        where: dict[str, Any] = {"device": torch.device(device), "physics": physics, "num_threads": num_threads}
        rebuild = partial(self.worlds, num_tasks * num_envs, seed=seed, **where)
        env = BatchedTaskEnv(rebuild(), self.spec, num_tasks, num_envs, seed=seed, device=device)
        env.rebuild, env.task_shape = rebuild, self.sample(1, torch.Generator().manual_seed(0)).shape[1:]
        return env
