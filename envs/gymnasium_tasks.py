"""Any environment of Gymnasium as a task distribution: how to build it, which tasks there are, how to set one.

    @dataclass(frozen=True)
    class Pendulums(GymTasks):
        name = "pendulums"
        horizon: int = 200

        def env(self) -> gymnasium.Env:
            return gymnasium.make("Pendulum-v1").unwrapped

        def set_task(self, env: gymnasium.Env, task: NDArray[np.float32]) -> None:
            env.g = float(task)

        def sample(self, num_tasks: int, generator: torch.Generator) -> Tensor:
            return 5 + 10 * torch.rand(num_tasks, generator=generator)

Worlds are stepped one after the other on Gymnasium's ``SyncVectorEnv``, so this is as fast as the environment is in
Python. Box observations are flattened, Dict and Tuple ones, too; actions are continuous (rescaled from [-1, 1]) or a
choice (Discrete). Time limits and restarts are the library's: ``horizon`` is the limit, a truncation of the
environment's own is an end of the episode like termination, so better build it without ``TimeLimit``.

A snapshot holds no object of the environment, only what led to its state: task, seed of the last reset, actions since.
Loading repeats them, which is exact where an environment obeys Gymnasium: its state is a function of these three. One
that keeps something across resets, or draws from a generator of its own, goes on a little differently.
"""

import functools
from abc import abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import EnvSpec
from metarl.envs.fields import BadField
from metarl.envs.worlds import BatchedTasks, Outcome

Env = gymnasium.Env[Any, Any]


@dataclass(frozen=True)
class GymTasks(BatchedTasks):
    """A task distribution over an environment of Gymnasium; on CPUs."""

    @abstractmethod
    def env(self) -> Env:
        """A new environment, without its own time limit."""

    @abstractmethod
    def set_task(self, env: Env, task: NDArray[np.float32]) -> None:
        """Gives an environment of :meth:`env` a task [...]; a reset follows."""

    @property
    def success(self) -> str:
        """The key of ``info`` that says whether a step succeeded; empty: the task does not define success."""
        return ""

    @property
    def terminates(self) -> bool:
        """Whether episodes can end before ``horizon``."""
        return True

    @property
    def spec(self) -> EnvSpec:
        obs, actions = _spaces(self)
        discrete = isinstance(actions, spaces.Discrete)
        return EnvSpec(
            int(np.prod(obs.shape or ())),
            int(actions.n) if isinstance(actions, spaces.Discrete) else int(np.prod(actions.shape or ())),
            self.horizon,
            terminates=self.terminates,
            has_success=bool(self.success),
            discrete=discrete,
        )

    def whole(self) -> Env:
        """The environment with observations in one row and actions in [-1, 1].

        Raises:
            BadField: spaces that no policy here can see or act in.
        """
        env = self.env()
        if not isinstance(env.observation_space, spaces.Box) or len(env.observation_space.shape) != 1:
            if not env.observation_space.is_np_flattenable:
                raise BadField(
                    f"observation_space of {self.name} is {env.observation_space}: use a Box or a Dict of them"
                )
            env = gymnasium.wrappers.FlattenObservation(env)
        if isinstance(env.action_space, spaces.Discrete):
            return env
        if not isinstance(env.action_space, spaces.Box) or not env.action_space.is_bounded():
            raise BadField(f"action_space of {self.name} is {env.action_space}: use a Discrete, or a Box with bounds")
        low, high = (np.full(env.action_space.shape, end, env.action_space.dtype) for end in (-1, 1))
        return gymnasium.wrappers.RescaleAction(env, low, high)

    def worlds(
        self, num_worlds: int, *, seed: int, device: torch.device, physics: str, num_threads: int
    ) -> "GymWorlds":
        if device.type != "cpu":
            raise BadField(f"device is {device}: environments of Gymnasium run on the CPU, use cpu")
        return GymWorlds(self, num_worlds)


@functools.lru_cache(maxsize=16)
def _spaces(tasks: GymTasks) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    env = tasks.whole()
    found = env.observation_space, env.action_space
    env.close()
    return found


class GymWorlds:
    """:class:`metarl.envs.worlds.Worlds` of environments that are stepped one after the other."""

    def __init__(self, tasks: GymTasks, num_worlds: int) -> None:
        self._tasks, self._spec = tasks, tasks.spec
        self._vector = SyncVectorEnv([tasks.whole] * num_worlds, autoreset_mode=AutoresetMode.DISABLED)
        self._obs = torch.zeros(num_worlds, self._spec.obs_dim)
        example = tasks.sample(1, torch.Generator().manual_seed(0))
        self._task = torch.zeros(num_worlds, *example.shape[1:], dtype=example.dtype)
        self._seeds = torch.zeros(num_worlds, dtype=torch.int64)
        self._age = torch.zeros(num_worlds, dtype=torch.int64)  # steps since the last reset
        none = torch.zeros(self._spec.horizon, num_worlds, self._spec.action_dim)
        self._actions: deque[Tensor] = deque(none, maxlen=self._spec.horizon)  # [world act], the last ones

    def set_tasks(self, task: Float[Tensor, "world ..."]) -> None:
        self._task = task.clone()
        for env, own in zip(self._vector.envs, task.numpy(), strict=True):
            self._tasks.set_task(env.unwrapped, own)

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        """Seeds of all worlds are drawn whatever the mask, so that none depends on which others are reset."""
        seeds = torch.randint(2**31 - 1, mask.shape, generator=generator)
        if mask.any():
            self._begin(mask, seeds)

    def _begin(self, mask: Bool[Tensor, " world"], seeds: Int[Tensor, " world"]) -> None:
        self._seeds, self._age = torch.where(mask, seeds, self._seeds), self._age.masked_fill(mask, 0)
        obs, _ = self._vector.reset(seed=self._seeds.tolist(), options={"reset_mask": mask.numpy()})
        self._obs = torch.from_numpy(np.asarray(obs, dtype=np.float32)).clone()

    def observe(self) -> Float[Tensor, "world obs"]:
        return self._obs.clone()

    def step(self, action: Float[Tensor, "world act"]) -> Outcome:
        self._actions.append(action.clone())
        self._age = self._age + 1
        obs, reward, terminated, truncated, info = self._vector.step(self._given(action))
        self._obs = torch.from_numpy(np.asarray(obs, dtype=np.float32)).clone()
        ended = torch.from_numpy(terminated | truncated)
        success = info.get(self._tasks.success, np.zeros(len(ended))).astype(np.bool_)
        return Outcome(
            torch.from_numpy(reward).float(),
            ended,
            torch.from_numpy(success),
            torch.zeros_like(ended, dtype=torch.bool),
        )

    def _given(self, action: Float[Tensor, "world act"]) -> NDArray[Any]:
        """Actions as the environments take them."""
        if self._spec.discrete:
            return action.argmax(1).numpy()
        return action.reshape(len(action), *(self._vector.single_action_space.shape or ())).numpy()

    def state_dict(self) -> dict[str, Tensor]:
        begun = {"task": self._task.clone(), "seeds": self._seeds.clone(), "age": self._age.clone()}
        return begun | {"actions": torch.stack([*self._actions]), "obs": self.observe()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Repeats the episodes that the worlds were in."""
        self.set_tasks(state["task"])
        self._begin(torch.ones_like(self._age, dtype=torch.bool), state["seeds"])
        self._actions.extend(state["actions"])
        for world, (env, age) in enumerate(zip(self._vector.envs, state["age"].tolist(), strict=True)):
            for action in state["actions"][len(self._actions) - age :]:
                env.step(self._given(action)[world])
        self._age = state["age"].clone()
        self._obs = state["obs"].clone()  # the same, where the environments obey
