"""Worlds of Gymnasium's environments: each stepped in turn, in this process or in several worker processes.

A snapshot holds no object of an environment, only what led to its state: task, seed of the last reset, actions since.
Loading repeats them, which is exact where an environment obeys Gymnasium: its state is a function of these three. One
that keeps something across resets, or draws from a generator of its own, goes on a little differently.
"""

import multiprocessing
import sys
import weakref
from collections import deque
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import cloudpickle
import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import drawn
from metarl.envs.fields import BadField
from metarl.envs.worlds import Outcome

Array = NDArray[Any]


class Row(NamedTuple):
    """What some worlds bring from a step."""

    obs: NDArray[np.float32]
    """[world, obs]"""
    reward: NDArray[np.float32]
    """[world]"""
    ended: NDArray[np.bool_]
    """[world]"""
    success: NDArray[np.bool_]
    """[world]"""


class Bunch(gymnasium.Env[Any, Any]):
    """Some of all worlds, stepped one after the other; its methods are given numbers of all and take their own.

    It is an environment only so that Gymnasium's worker processes hold it.
    """

    def __init__(self, tasks: Any, first: int, last: int) -> None:
        self._tasks, self._own = tasks, slice(first, last)
        self._envs = [tasks.whole() for _ in range(first, last)]
        self.observation_space, self.action_space = self._envs[0].observation_space, self._envs[0].action_space
        self._pixels = self.observation_space.dtype == np.uint8
        size = int(np.prod(self.observation_space.shape or ()))
        self._obs = np.zeros((last - first, size), np.float32)

    def set_tasks(self, task: Array) -> None:
        for env, own in zip(self._envs, task[self._own], strict=True):
            self._tasks.set_task(env.unwrapped, np.asarray(own))

    def begin(self, mask: NDArray[np.bool_], seeds: NDArray[np.int64]) -> NDArray[np.float32]:
        """Resets the worlds of ``mask``; returns the observations of all."""
        for i in np.flatnonzero(mask[self._own]):
            obs, _ = self._envs[i].reset(seed=int(seeds[self._own][i]))
            self._obs[i] = self._seen(obs)
        return self._obs.copy()

    def advance(self, actions: Array) -> Row:
        """Steps every world."""
        num_worlds, success = len(self._envs), self._tasks.success
        row = Row(self._obs, np.zeros(num_worlds, np.float32), *np.zeros((2, num_worlds), np.bool_))
        for i, (env, action) in enumerate(zip(self._envs, actions[self._own], strict=True)):
            obs, row.reward[i], terminated, truncated, info = env.step(action)
            row.obs[i], row.ended[i] = self._seen(obs), terminated or truncated
            row.success[i] = bool(success and info.get(success, False))
        return row._replace(obs=row.obs.copy())

    def repeat(self, actions: Array, ages: NDArray[np.int64]) -> None:
        """Takes the last ``ages`` of the actions [time, world, ...] once more."""
        for i, (env, age) in enumerate(zip(self._envs, ages[self._own].tolist(), strict=True)):
            for action in actions[len(actions) - age :, self._own][:, i]:
                env.step(action)

    def picture(self, world: int) -> NDArray[np.uint8] | None:
        """What one of all worlds looks like; None: it is no world of this bunch, or does not draw itself."""
        here = range(self._own.start, self._own.stop)
        return self._envs[here.index(world)].render() if world in here else None

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _seen(self, obs: Array) -> Array:
        """Pixels from 0 to 1."""
        return obs.astype(np.float32) / 255 if self._pixels else obs


class GymWorlds:
    """:class:`metarl.envs.worlds.Worlds` and :class:`metarl.envs.camera.PicturedWorlds` of such environments."""

    def __init__(self, tasks: Any, num_worlds: int, *, num_workers: int) -> None:
        """Starts ``num_workers`` processes; 0: the worlds are stepped in this one."""
        self._spec = tasks.spec
        ends = np.linspace(0, num_worlds, max(1, min(num_workers, num_worlds)) + 1).astype(int).tolist()
        bunches = [partial(Bunch, tasks, *ends) for ends in pairwise(ends)]
        self._here = None if num_workers else bunches[0]()
        self._workers = start(tasks, bunches) if num_workers else None
        if self._workers is not None:
            weakref.finalize(self, self._workers.close)  # also where the program ends
        self._space = tasks.action_space
        self._obs = torch.zeros(num_worlds, self._spec.obs_dim)
        example = tasks.sample(1, torch.Generator().manual_seed(0))
        self._task = torch.zeros(num_worlds, *example.shape[1:], dtype=example.dtype)
        self._seeds = torch.zeros(num_worlds, dtype=torch.int64)
        self._age = torch.zeros(num_worlds, dtype=torch.int64)  # steps since the last reset
        none = torch.zeros(self._spec.horizon, num_worlds, self._spec.action_dim)
        self._actions: deque[Tensor] = deque(none, maxlen=self._spec.horizon)  # [world act], the last ones

    def _ask(self, method: str, *arguments: Any) -> list[Any]:
        """What each bunch answers."""
        if self._workers is not None:
            return list(self._workers.call(method, *arguments))
        return [getattr(self._here, method)(*arguments)]

    def seed(self, seed: int) -> None:
        """As :class:`metarl.envs.worlds.SeededWorlds`: each reset seeds its environments."""

    def set_tasks(self, task: Float[Tensor, "world ..."]) -> None:
        self._task = task.clone()
        self._ask("set_tasks", task.numpy())

    def reset(self, mask: Bool[Tensor, " world"], generator: torch.Generator) -> None:
        """Seeds of all worlds are drawn whatever the mask, so that none depends on which others are reset."""
        seeds = drawn(partial(torch.randint, 2**31 - 1), mask.shape, generator)
        if mask.any():
            self._begin(mask, seeds)

    def _begin(self, mask: Bool[Tensor, " world"], seeds: Int[Tensor, " world"]) -> None:
        self._seeds, self._age = torch.where(mask, seeds, self._seeds), self._age.masked_fill(mask, 0)
        self._obs = torch.from_numpy(np.concatenate(self._ask("begin", mask.numpy(), self._seeds.numpy())))

    def observe(self) -> Float[Tensor, "world obs"]:
        return self._obs.clone()

    def step(self, action: Float[Tensor, "world act"]) -> Outcome:
        self._actions.append(action.clone())
        self._age = self._age + 1
        rows = self._ask("advance", self._given(action))
        self._obs, reward, ended, success = (torch.from_numpy(np.concatenate(x)) for x in zip(*rows, strict=True))
        return Outcome(reward, ended, success, torch.zeros_like(ended))

    def picture(self, world: int) -> NDArray[np.uint8]:
        """As :class:`metarl.envs.camera.PicturedWorlds`.

        Raises:
            BadField: a package is missing that the environment draws with.
        """
        try:
            drawn = [picture for picture in self._ask("picture", world) if picture is not None]
        except gymnasium.error.DependencyNotInstalled as error:
            raise BadField(f"render_mode is 'rgb_array': {error}") from error
        return np.asarray(drawn[0])

    def _given(self, action: Float[Tensor, "*time world act"]) -> Array:
        """Actions as the environments take them."""
        if self._spec.discrete:
            return action.argmax(-1).numpy() + int(getattr(self._space, "start", 0))
        return action.unflatten(-1, self._space.shape or (1,)).numpy()

    def state_dict(self) -> dict[str, Tensor]:
        begun = {"task": self._task.clone(), "seeds": self._seeds.clone(), "age": self._age.clone()}
        return begun | {"actions": torch.stack([*self._actions]), "obs": self.observe()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Repeats the episodes that the worlds were in."""
        self.set_tasks(state["task"])
        self._begin(torch.ones_like(self._age, dtype=torch.bool), state["seeds"])
        self._actions.extend(state["actions"])
        self._ask("repeat", self._given(state["actions"]), state["age"].numpy())
        self._age = state["age"].clone()
        self._obs = state["obs"].clone()  # the same, where the environments obey


def start(tasks: Any, bunches: list[Any]) -> AsyncVectorEnv:
    """A process for each bunch. They are forked from a server that has imported this module and has no threads: a fork
    of a process that computes on threads can hang, and one that imports torch for itself takes seconds."""
    context = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    if context == "forkserver":
        multiprocessing.get_context(context).set_forkserver_preload([__name__])
    home = sys.modules[type(tasks).__module__]
    if not home.__name__.startswith("code_of_a_user"):
        return AsyncVectorEnv(bunches, shared_memory=False, context=context)
    cloudpickle.register_pickle_by_value(home)  # a file that --code names: no worker could import it
    try:
        return AsyncVectorEnv(bunches, shared_memory=False, context=context)
    finally:
        cloudpickle.unregister_pickle_by_value(home)


def flat(env: gymnasium.Env[Any, Any]) -> tuple[gymnasium.Env[Any, Any], tuple[int, ...]]:
    """The environment with observations in one row, and the shape of those that are pictures."""
    space = env.observation_space
    shape = tuple(space.shape or ()) if isinstance(space, spaces.Box) else ()
    if len(shape) == 1:
        return env, ()
    return gymnasium.wrappers.FlattenObservation(env), shape if len(shape) == 3 else ()
