"""The batched environment as a ``VecEnv`` of Stable-Baselines3, which this module imports."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from metarl.envs.fields import BadField
from metarl.envs.registry import TaskDistribution
from metarl.envs.vector_env import TaskVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("metarl.envs.sb3 needs Stable-Baselines3: pip install stable-baselines3") from error


class SB3VecEnv(VecEnv):
    """``num_envs`` worlds of ``num_tasks`` tasks, stepped together; options are :class:`TaskVectorEnv`'s.

    Worlds keep their tasks until :meth:`reset`, or draw new ones when all episodes end in the same step, if
    ``redraw``: as the single environments of a ``DummyVecEnv`` do, where episodes end at the time limit alone.
    """

    def __init__(
        self, tasks: TaskDistribution | str, num_envs: int = 1, *, redraw: bool = False, **options: Any
    ) -> None:
        if "autoreset_mode" in options:
            raise BadField(
                f"autoreset_mode is {options['autoreset_mode']!r}: Stable-Baselines3 knows one, leave it out"
            )
        self.worlds = TaskVectorEnv(tasks, num_envs, **options)
        self.render_mode, self._redraw = self.worlds.render_mode, redraw
        super().__init__(num_envs, self.worlds.single_observation_space, self.worlds.single_action_space)

    def reset(self) -> NDArray[np.float32]:
        seed, options = self._seeds[0], self._options[0]  # one generator draws for all worlds
        obs, infos = self.worlds.reset(seed=seed, options=options or None)
        self.reset_infos = [{"task": task} for task in infos["task"]]
        self._reset_seeds()
        self._reset_options()
        return obs

    def step_async(self, actions: NDArray[Any]) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        obs, reward, terminated, truncated, told = self.worlds.step(self._actions)
        done = terminated | truncated
        names = [name for name in ("task", "diverged", "success", "is_success") if name in told]
        infos: list[dict[str, Any]] = [{name: told[name][world] for name in names} for world in range(self.num_envs)]
        for world in np.flatnonzero(done):
            final = {name: told["final_info"][name][world] for name in names}
            late = bool(truncated[world] and not terminated[world])
            infos[world] = final | {"terminal_observation": told["final_obs"][world], "TimeLimit.truncated": late}
        if self._redraw and done.all():
            obs = self.reset()
        return obs, reward.astype(np.float32), done, infos

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return self._of(self.worlds.get_attr(attr_name), indices)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        return self._of(self.worlds.call(method_name, *method_args, **method_kwargs), indices)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise BadField(f"{attr_name} is an attribute that all worlds share: build another environment to change it")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> list[NDArray[np.uint8] | None]:
        return list(self.worlds.call("render"))

    def close(self) -> None:
        self.worlds.close()

    def _of(self, values: tuple[Any, ...], indices: Any) -> list[Any]:
        return [values[world] for world in self._get_indices(indices)]
