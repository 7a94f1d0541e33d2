"""Tasks as environments of Gymnasium, one world each, so that other libraries train on them.

Importing :mod:`envs` registers every task distribution under the name of its class::

    env = gymnasium.make("metarl.envs:metarl/AntGoal-v0", preset="v5", task=[1.0, -2.0])

The prefix ``envs:`` imports this package: Gymnasium 1.0 did away with entry points that did so on installation.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.api import EnvSpec, Step, TaskEnv
from metarl.envs.arguments import Numbers, as_actions, asked_task, example, parameters
from metarl.envs.camera import Camera, PicturedTask, PicturedWorlds, VisibleTask
from metarl.envs.fields import BadField, UnknownOption
from metarl.envs.registry import TASKS, TaskDistribution, find_preset
from metarl.envs.worlds import BatchedTaskEnv

LARGEST = float(np.finfo(np.float32).max)  # bounds of observations; check_env warns of infinite ones


class GymnasiumEnv(gymnasium.Env[NDArray[np.float32], Any]):
    """One world that plays ``task``, or at each reset a new task drawn from the distribution.

    ``reset(seed=...)`` decides all that follows: tasks, first states, payoffs. ``reset(options={"task": ...})`` plays
    an episode of that task. Actions beyond [-1, 1] are clipped; a discrete one is an index. ``truncated`` is the time
    limit, the distribution's ``horizon``, or ``diverged``; an episode of a single step, a bandit's pull, terminates
    instead. ``info`` holds ``task``, the parameter; after a step also ``diverged``, as :class:`metarl.envs.api.Step`,
    and ``success``, also as ``is_success``, where the task defines it. A copy or a pickle continues where it was taken.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as in gymnasium.Env
    _task: Tensor

    def __init__(
        self,
        tasks: TaskDistribution | str,
        *,
        preset: str | None = None,
        task: Numbers | None = None,
        render_mode: str | None = None,
        **changes: Any,
    ) -> None:
        """Chooses a definition; its world is built at the first reset.

        Args:
            tasks: a task distribution, or the name of one.
            preset: the definition of a distribution given by name; None: its first.
            task: the parameter of the one task to play.
            render_mode: ``rgb_array``, of MuJoCo tasks and of environments that draw themselves.
            changes: fields of the distribution that shall differ, such as ``horizon``.

        Raises:
            BadField: a value that cannot work.
        """
        self.tasks = find_tasks(tasks, preset, changes)
        self.observation_space, self.action_space = spaces_of(self.tasks.spec)
        self._fixed = None if task is None else parameters(self.tasks, task, 1)
        self.metadata, self.render_mode = render_modes(self.tasks, render_mode), render_mode
        self._env: Any = None
        self._camera: Camera | None = None
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None or self._env is None:
            self._env, self._generator = begin(self._env, self.tasks, 1, 1, self.np_random, num_threads=1)
        asked = asked_task(options)
        given = self._fixed if asked is None else parameters(self.tasks, asked, 1)
        task = self.tasks.sample(1, self._generator) if given is None else given
        if self._camera is not None and not torch.equal(task, self._task):
            self.close()  # another task may look different
        self._task = task
        self._env.set_tasks(task)
        obs = self._env.reset()
        self._over = False
        self._look()
        return obs[0, 0].numpy(), self._info()

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over, or none has begun: call reset()")
        step = self._env.step(as_actions(self.tasks.spec, action, self.action_space.shape, 1, 1))
        terminated, truncated = (bool(flag) for flag in endings(self.tasks.spec, step))
        self._over = terminated or truncated
        self._look()
        found = {name: bool(value) for name, value in findings(self.tasks.spec, step).items()}
        return step.next_obs[0, 0].numpy(), float(step.reward), terminated, truncated, self._info() | found

    def render(self) -> NDArray[np.uint8] | None:
        """The present state; after an episode's last step the one before it, for the world has begun anew by then."""
        if self.render_mode is None:
            return None
        if self._env is None:
            raise gymnasium.error.ResetNeeded("there is nothing to see before reset()")
        if not isinstance(self.tasks, VisibleTask):
            return self._pose.copy()
        if self._camera is None:
            self._camera = Camera(self.tasks.model_of(self._task[0]))
        return self._camera.picture(self._pose)

    def close(self) -> None:
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def __getstate__(self) -> dict[str, Any]:
        """For ``copy`` and ``pickle``: all but the camera, which is made anew where it is needed."""
        return vars(self) | {"_camera": None}

    def _info(self) -> dict[str, Any]:
        return {"task": self._task[0].numpy().copy()}

    def _look(self) -> None:
        """Notes where the bodies are, or what is to be seen, for :meth:`render`."""
        if self.render_mode is not None and not self._over:
            worlds = self._env.worlds
            drawn = isinstance(worlds, PicturedWorlds)
            self._pose = worlds.picture(0) if drawn else worlds.pose(0).double().numpy()


def find_tasks(tasks: TaskDistribution | str, preset: str | None, changes: Mapping[str, Any]) -> TaskDistribution:
    """A distribution, given or by name and preset, with some fields changed.

    Raises:
        BadField: a field that it does not have, or a value that it refuses.
    """
    if not isinstance(tasks, str) and preset is not None:
        raise BadField(f"preset is {preset!r}: only a task given by its name has one to choose")
    found = find_preset(tasks, preset) if isinstance(tasks, str) else tasks
    known = [field.name for field in fields(found)]
    for name in changes:
        if name not in known:
            those = f"use task, preset, or one of {', '.join(known)}"
            said = f"unexpected keyword argument '{name}'"  # Python's own words, which TorchRL looks for
            raise UnknownOption(f"{name} is no option of {found.name}: {those} ({said})")
    return replace(found, **changes)


def render_modes(tasks: TaskDistribution, render_mode: str | None) -> dict[str, Any]:
    """The metadata of an environment: how its tasks can be drawn, and where they shall be, how many steps a second.

    Raises:
        UnknownOption: there is no such mode; whoever offers one by itself then does without (Stable-Baselines3).
    """
    bodies = isinstance(tasks, VisibleTask)
    drawn = bodies or (isinstance(tasks, PicturedTask) and tasks.frames_per_second > 0)
    modes = ["rgb_array"] if drawn else []
    if render_mode not in (None, *modes):
        known = " or ".join(["None", *modes])
        raise UnknownOption(f"render_mode is {render_mode!r}: use {known} for {tasks.name}")
    if render_mode is None:
        return {"render_modes": modes}
    if not isinstance(tasks, VisibleTask):
        return {"render_modes": modes, "render_fps": getattr(tasks, "frames_per_second")}  # noqa: B009
    model = tasks.model_of(example(tasks))
    return {"render_modes": modes, "render_fps": 1 / (model.opt.timestep * tasks.frame_skip)}


def spaces_of(spec: EnvSpec) -> tuple[spaces.Space[NDArray[np.float32]], spaces.Space[Any]]:
    """Of the observations and the actions of one world."""
    obs = spaces.Box(-LARGEST, LARGEST, (spec.obs_dim,), np.float32)
    if spec.discrete:
        return obs, spaces.Discrete(spec.action_dim)
    return obs, spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)


def begin(
    env: TaskEnv | None,
    tasks: TaskDistribution,
    num_tasks: int,
    num_envs: int,
    random: np.random.Generator,
    **options: Any,
) -> tuple[TaskEnv, torch.Generator]:
    """New worlds, or those of ``env`` as if they were, and what their tasks are drawn from."""
    reset_seed, task_seed = random.integers(2**63 - 1, size=2).tolist()
    if not (isinstance(env, BatchedTaskEnv) and env.seed(reset_seed)):
        env = tasks.make(num_tasks, num_envs, seed=reset_seed, **options)
    return env, torch.Generator().manual_seed(task_seed)


def endings(spec: EnvSpec, step: Step) -> tuple[Tensor, Tensor]:
    """Where a step terminated and truncated an episode; one of a single step has no time limit to be cut by."""
    if spec.horizon == 1:
        return ~step.diverged, step.diverged
    return step.terminated, step.truncated


def findings(spec: EnvSpec, step: Step) -> dict[str, Tensor]:
    """What ``info`` says of a step, world by world."""
    success = {"success": step.success, "is_success": step.success}  # as Gymnasium's robots and its readers call it
    return {"diverged": step.diverged} | (success if spec.has_success else {})


def register_tasks() -> None:
    """Makes every task distribution that is not known to Gymnasium yet known as ``metarl/<its class>-v0``."""
    for name, tasks in TASKS.items():
        identity = f"metarl/{tasks.__name__}-v0"
        if identity not in gymnasium.registry:
            gymnasium.register(
                identity,
                entry_point="metarl.envs.gymnasium_env:GymnasiumEnv",
                vector_entry_point="metarl.envs.vector_env:TaskVectorEnv",
                kwargs={"tasks": name},
            )
