"""The batched environment as a vector environment of Gymnasium: all worlds step together, numpy in and out."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.arguments import Numbers, as_actions, asked_task, parameters
from metarl.envs.fields import BadField, require
from metarl.envs.gymnasium_env import begin, endings, find_tasks, findings, spaces_of
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import MOST_WORLDS

Infos = dict[str, Any]


class TaskVectorEnv(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """``num_envs`` worlds, equally many of each of ``num_tasks`` tasks, those of a task side by side.

    ``reset`` gives every world its task: ``task``, or new ones drawn from the distribution. Where an episode ends, the
    next one of the same task begins in the same step (``AutoresetMode.SAME_STEP``: ``final_obs`` and ``final_info``),
    so whoever wants other tasks resets. Seeds, options, flags and ``info`` are those of
    :class:`metarl.envs.gymnasium_env.GymnasiumEnv`, whose world one task in one world repeats.
    """

    metadata: Infos = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012 - as in VectorEnv
    autoreset_mode = AutoresetMode.SAME_STEP

    def __init__(
        self,
        tasks: TaskDistribution | str,
        num_envs: int = 1,
        *,
        num_tasks: int | None = None,
        preset: str | None = None,
        task: Numbers | None = None,
        device: str = "cpu",
        physics: str = "auto",
        num_threads: int = 0,
        **changes: Any,
    ) -> None:
        """Chooses a definition; its worlds are built at the first reset.

        Args:
            tasks: a task distribution, or the name of one.
            num_envs: worlds, a multiple of num_tasks.
            num_tasks: tasks; None: as many as worlds.
            preset: the definition of a distribution given by name; None: its first.
            task: the parameters [task, ...], or one [...] that all share.
            device, physics, num_threads: as in :meth:`metarl.envs.registry.TaskDistribution.make`.
            changes: fields of the distribution that shall differ, such as ``horizon``.

        Raises:
            BadField: a value that cannot work.
        """
        self.tasks = find_tasks(tasks, preset, changes)
        self.num_envs, self.num_tasks = num_envs, num_envs if num_tasks is None else num_tasks
        require(self, "num_envs", at_least=1, at_most=MOST_WORLDS)
        if self.num_tasks < 1 or num_envs % self.num_tasks:
            raise BadField(f"num_tasks is {num_tasks}: use a number that divides num_envs ({num_envs})")
        self.single_observation_space, self.single_action_space = spaces_of(self.tasks.spec)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._fixed = None if task is None else parameters(self.tasks, task, self.num_tasks)
        self._options = {"device": device, "physics": physics, "num_threads": num_threads}
        self._env: Any = None

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        super().reset(seed=seed)
        each = self.num_envs // self.num_tasks
        if seed is not None or self._env is None:
            self._env, self._generator = begin(self.tasks, self.num_tasks, each, self.np_random, **self._options)
        asked = asked_task(options)
        given = self._fixed if asked is None else parameters(self.tasks, asked, self.num_tasks)
        task = self.tasks.sample(self.num_tasks, self._generator) if given is None else given
        self._env.set_tasks(task)
        self._task = task.repeat_interleave(each, dim=0).numpy()
        return _flat(self._env.reset()), columns({"task": self._task}, np.ones(self.num_envs, np.bool_))

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        if self._env is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset()")
        spec = self.tasks.spec
        each = self.num_envs // self.num_tasks
        chosen = as_actions(spec, actions, self.action_space.shape, self.num_tasks, each)
        step = self._env.step(chosen.to(self._env.device))
        terminated, truncated = (_flat(flag) for flag in endings(spec, step))
        found = {name: _flat(value) for name, value in findings(spec, step).items()}
        ended = terminated | truncated
        info = columns({"task": self._task}, np.ones(self.num_envs, np.bool_)) | columns(found, ~ended)
        if ended.any():
            final = {"final_info": columns({"task": self._task} | found, ended), "_final_info": ended.copy()}
            info |= final | {"final_obs": _rows(_flat(step.next_obs), ended), "_final_obs": ended.copy()}
        return _flat(step.obs), _flat(step.reward.double()), terminated, truncated, info


def columns(values: dict[str, NDArray[Any]], mask: NDArray[np.bool_]) -> Infos:
    """Values [world, ...] and the mask of worlds that have them, as Gymnasium lays out infos; zeros elsewhere."""
    info: Infos = {}
    for name, value in values.items():
        info[name], info[f"_{name}"] = value.copy(), mask.copy()
        info[name][~mask] = 0
    return info


def _rows(obs: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.object_]:
    """The observations of the worlds of ``mask``, None elsewhere."""
    rows = np.full(len(obs), None, dtype=object)
    for world in np.flatnonzero(mask):
        rows[world] = obs[world]
    return rows


def _flat(values: Tensor) -> NDArray[Any]:
    """[task, env, ...] -> [world, ...] in numpy, the caller's own to change."""
    return values.flatten(0, 1).cpu().numpy().copy()
