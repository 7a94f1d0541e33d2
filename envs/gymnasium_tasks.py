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

This is as fast as the environment is in Python; ``processes = True`` in the class steps the worlds in worker
processes, one a core, which pays where a step takes more than some 0.1 ms. Observations are flattened, those of a
Dict or Tuple, too; pictures (a Box [height, width, channel]) also keep their shape for an encoder, ``obs_shape`` of the
spec, and pixels (uint8) come as numbers from 0 to 1. Actions are continuous (rescaled from [-1, 1]) or a choice
(Discrete). Time limits and restarts are the library's: ``horizon`` is the limit, a truncation of the environment's own
is an end of the episode like termination, so better build it without ``TimeLimit``. Built with
``render_mode="rgb_array"`` it can be filmed. Snapshots: :mod:`metarl.envs.gymnasium_worlds`.
"""

import functools
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from metarl.envs.api import EnvSpec
from metarl.envs.cores import cores
from metarl.envs.fields import BadField, require
from metarl.envs.gymnasium_worlds import GymWorlds, flat
from metarl.envs.worlds import BatchedTasks

Env = gymnasium.Env[Any, Any]
MOST_STEPS = 100_000  # of an episode: resuming repeats it, so its actions are kept


@dataclass(frozen=True)
class GymTasks(BatchedTasks):
    """A task distribution over an environment of Gymnasium; on CPUs."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self, "horizon", at_most=MOST_STEPS)

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
    def processes(self) -> bool:
        """Whether worlds are stepped in worker processes: as many as ``num_threads`` asks for, by default one a core.

        A script then needs ``if __name__ == "__main__":`` around what it does.
        """
        return False

    @property
    def action_space(self) -> spaces.Space[Any]:
        """What the environment acts in, rescaled."""
        return _about(self).action_space

    @property
    def frames_per_second(self) -> float:
        """As :class:`metarl.envs.camera.PicturedTask`."""
        return _about(self).frames_per_second

    @property
    def spec(self) -> EnvSpec:
        obs, actions, shape, _ = _about(self)
        discrete = isinstance(actions, spaces.Discrete)
        return EnvSpec(
            int(np.prod(obs.shape or ())),
            int(actions.n) if isinstance(actions, spaces.Discrete) else int(np.prod(actions.shape or ())),
            self.horizon,
            terminates=self.terminates,
            has_success=bool(self.success),
            discrete=discrete,
            obs_shape=shape,
        )

    def whole(self) -> Env:
        """The environment with observations in one row and actions in [-1, 1].

        Raises:
            BadField: spaces that no policy here can see or act in.
        """
        env = self.env()
        if not env.observation_space.is_np_flattenable:
            raise BadField(f"observation_space of {self.name} is {env.observation_space}: use a Box or a Dict of them")
        env, _ = flat(env)
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
        return GymWorlds(self, num_worlds, num_workers=(num_threads or cores()) if self.processes else 0)


class About(NamedTuple):
    """What an environment says of itself."""

    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    obs_shape: tuple[int, ...]
    frames_per_second: float
    """0 where it does not draw itself."""


@functools.lru_cache(maxsize=16)
def _about(tasks: GymTasks) -> About:
    env, bare = tasks.whole(), tasks.env()
    _, shape = flat(bare)
    fps = float(env.metadata.get("render_fps") or 20.0) if env.render_mode == "rgb_array" else 0.0
    found = About(env.observation_space, env.action_space, shape, fps)
    for each in (env, bare):
        each.close()
    return found
