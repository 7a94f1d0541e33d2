"""The batched environment as a vector environment of Gymnasium: all worlds step together, numpy in and out."""

from typing import Any, cast

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray
from torch import Tensor

from metarl.envs.arguments import Numbers, as_actions, asked_task, parameters
from metarl.envs.camera import Camera, PicturedWorlds, VisibleTask
from metarl.envs.fields import BadField, require
from metarl.envs.gymnasium_env import begin, endings, find_tasks, findings, render_modes, spaces_of
from metarl.envs.registry import TaskDistribution
from metarl.envs.worlds import MOST_WORLDS, BatchedTaskEnv

Infos = dict[str, Any]


class TaskVectorEnv(VectorEnv[NDArray[np.float32], NDArray[Any], NDArray[Any]]):
    """``num_envs`` worlds, equally many of each of ``num_tasks`` tasks, those of a task side by side.

    ``reset`` gives every world its task: ``task``, or new ones drawn from the distribution. Where an episode ends, the
    next one of the same task begins, when ``autoreset_mode`` says: in the same step (``SAME_STEP``, the default, with
    ``final_obs`` and ``final_info``), in the next step, whose action and reward then mean nothing (``NEXT_STEP``), or
    at ``reset(options={"reset_mask": worlds})`` (``DISABLED``). Whoever wants other tasks resets all. Seeds, options,
    flags and ``info`` are those of :class:`metarl.envs.gymnasium_env.GymnasiumEnv`, whose world one task in one world
    repeats.
    """

    metadata: Infos = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - as in VectorEnv

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
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
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
            autoreset_mode: when the next episode of a world begins.
            render_mode: ``rgb_array``, where the single environment has it.
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
        self.autoreset_mode = as_mode(autoreset_mode)
        self.metadata, self.render_mode = render_modes(self.tasks, render_mode), render_mode
        self.metadata |= {"autoreset_mode": self.autoreset_mode}
        self._fixed = None if task is None else parameters(self.tasks, task, self.num_tasks)
        self._options = {"device": device, "physics": physics, "num_threads": num_threads}
        self._env: Any = None
        self._cameras: dict[int, Camera] = {}  # by task
        self._over = np.zeros(num_envs, np.bool_)  # worlds whose next episode has not begun

    def reset(self, *, seed: int | None = None, options: Infos | None = None) -> tuple[NDArray[np.float32], Infos]:
        if options and "reset_mask" in options:
            return self._reset_some(as_mask(options, seed, self.num_envs))
        super().reset(seed=seed)
        each = self.num_envs // self.num_tasks
        if seed is not None or self._env is None:
            made, self._generator = begin(self._env, self.tasks, self.num_tasks, each, self.np_random, **self._options)
            self._env = with_restarts(made, self.tasks, self.autoreset_mode)
        asked = asked_task(options)
        given = self._fixed if asked is None else parameters(self.tasks, asked, self.num_tasks)
        task = self.tasks.sample(self.num_tasks, self._generator) if given is None else given
        self._close_cameras()
        self._env.set_tasks(task)
        self._task = task.repeat_interleave(each, dim=0).numpy()
        self._over = np.zeros(self.num_envs, np.bool_)
        return _flat(self._env.reset()), self._infos({}, ~self._over)

    def _reset_some(self, worlds: NDArray[np.bool_]) -> tuple[NDArray[np.float32], Infos]:
        """Begins new episodes, of the same tasks, in these worlds alone."""
        if self._env is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset() for all worlds first")
        obs = with_restarts(self._env, self.tasks, None).restart(self._by_task(worlds))
        self._over &= ~worlds
        return _flat(obs), columns({"task": self._task}, worlds)

    def step(
        self, actions: NDArray[Any]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], Infos]:
        late = self._over
        if self._env is None or (self.autoreset_mode == AutoresetMode.DISABLED and late.any()):
            which = "no episode has begun" if self._env is None else f"worlds {np.flatnonzero(late)} are over"
            raise gymnasium.error.ResetNeeded(f"{which}: call reset()")
        spec = self.tasks.spec
        each = self.num_envs // self.num_tasks
        chosen = as_actions(spec, actions, self.action_space.shape, self.num_tasks, each)
        if late.any():
            self._env.rest(self._by_task(late))
        step = self._env.step(chosen.to(self._env.device))
        terminated, truncated = (_flat(flag) & ~late for flag in endings(spec, step))
        found = {name: _flat(value) & ~late for name, value in findings(spec, step).items()}
        reward, ended = _flat(step.reward.double()), terminated | truncated
        if self.autoreset_mode != AutoresetMode.SAME_STEP:
            self._over = ended
            obs = self._env.restart(self._by_task(late)) if late.any() else step.obs
            return _flat(obs), np.where(late, 0.0, reward), terminated, truncated, self._infos(found, ~late)
        info = self._infos(found, ~ended)
        if ended.any():
            final = {"final_info": columns({"task": self._task} | found, ended), "_final_info": ended.copy()}
            info |= final | {"final_obs": _rows(_flat(step.next_obs), ended), "_final_obs": ended.copy()}
        return _flat(step.obs), reward, terminated, truncated, info

    def render(self) -> tuple[NDArray[np.uint8], ...] | None:
        """A picture [height, width, RGB] of each world."""
        if self.render_mode is None:
            return None
        if self._env is None:
            raise gymnasium.error.ResetNeeded("there is nothing to see before reset()")
        return tuple(self._picture(world) for world in range(self.num_envs))

    def _picture(self, world: int) -> NDArray[np.uint8]:
        worlds, task = self._env.worlds, world * self.num_tasks // self.num_envs
        if isinstance(worlds, PicturedWorlds):
            return worlds.picture(world)
        if task not in self._cameras:
            self._cameras[task] = Camera(cast(VisibleTask, self.tasks).model_of(torch.as_tensor(self._task[world])))
        return self._cameras[task].picture(worlds.pose(world).double().numpy())

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute by world, as Gymnasium's vector environments give it: of its own (``task`` and the spaces) or
        shared, of this environment or its distribution."""
        return self.call(name)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The same, or what a method gives: one call for all worlds, ``render`` a picture of each."""
        if name == "render":
            return self.render() or (None,) * self.num_envs
        if name == "task":
            if self._env is None:
                raise gymnasium.error.ResetNeeded("no task has been drawn: call reset()")
            return tuple(self._task.copy())
        single = f"single_{name}" if name in ("observation_space", "action_space") else name
        value = getattr(self if hasattr(self, single) else self.tasks, single)
        return (value(*args, **kwargs) if callable(value) else value,) * self.num_envs

    def close_extras(self, **_: Any) -> None:
        self._close_cameras()

    def _close_cameras(self) -> None:
        for camera in self._cameras.values():
            camera.close()
        self._cameras = {}

    def __getstate__(self) -> Infos:
        """For ``copy`` and ``pickle``: all but the cameras, which are made anew where they are needed."""
        return vars(self) | {"_cameras": {}}

    def _by_task(self, worlds: NDArray[np.bool_]) -> Tensor:
        return torch.from_numpy(worlds).reshape(self.num_tasks, -1).to(self._env.device)

    def _infos(self, found: dict[str, NDArray[Any]], mask: NDArray[np.bool_]) -> Infos:
        return columns({"task": self._task}, np.ones(self.num_envs, np.bool_)) | columns(found, mask)


def as_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """A mode of automatic resets, given by its value or name."""
    known = {each.value.upper(): each for each in AutoresetMode}
    found = known.get(mode.value.upper() if isinstance(mode, AutoresetMode) else mode.upper().replace("_", ""))
    if found is None:
        names = ", ".join(each.name for each in AutoresetMode)
        raise BadField(f"autoreset_mode is {mode!r}: use one of {names}")
    return found


def with_restarts(env: Any, tasks: TaskDistribution, mode: AutoresetMode | None) -> Any:
    """The environment, which begins episodes as ``mode`` says; None: as it did.

    Raises:
        BadField: it keeps episodes of its own, which begin when it says.
    """
    if isinstance(env, BatchedTaskEnv):
        env.restarts = env.restarts if mode is None else mode == AutoresetMode.SAME_STEP
    elif mode != AutoresetMode.SAME_STEP:
        asked = "reset_mask was given" if mode is None else f"autoreset_mode is {mode.name}"
        raise BadField(f"{asked}: the environments of {tasks.name} begin episodes by themselves, use SAME_STEP")
    return env


def as_mask(options: Infos, seed: int | None, num_envs: int) -> NDArray[np.bool_]:
    """The worlds [world] that a reset asks for.

    Raises:
        BadField: no such array, or what a reset of some worlds cannot do.
    """
    mask, rest = options["reset_mask"], set(options) - {"reset_mask"}
    if rest or seed is not None:
        also = ", ".join(sorted(rest)) or "a seed"
        raise BadField(f"reset_mask was given with {also}: worlds that begin anew keep their task and generator")
    if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise BadField(f"reset_mask is {mask!r}: use an array of {num_envs} booleans, at least one of them True")
    return mask


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
