"""Meta-World's own environments, the oracle of our port: one world, in Python, patched where it crashes."""

import pickle
from typing import Any

import mujoco
import numpy as np
from metaworld import ALL_V3_ENVIRONMENTS, SawyerXYZEnv, Task
from metaworld.sawyer_xyz_env import SawyerMocapBase

from envs.metaworld.simulation import WELD


def _reset_mocap_welds(self: Any) -> None:
    """Meta-World's writes 11 numbers into the 12 columns of MuJoCo >= 3.17, which raises."""
    welds = self.model.eq_type == mujoco.mjtEq.mjEQ_WELD
    self.model.eq_data[welds, :11] = WELD


SawyerMocapBase.reset_mocap_welds = _reset_mocap_welds


def official(name: str, vec: np.ndarray | None = None, *, reward: str = "v2", show_goal: bool = False) -> SawyerXYZEnv:
    """The environment ``name``, with the random vector ``vec`` set as its task."""
    cls = ALL_V3_ENVIRONMENTS[name]
    env = cls(reward_function_version=reward)
    if vec is not None:
        set_vec(env, vec, show_goal=show_goal)
    return env


def set_vec(env: SawyerXYZEnv, vec: np.ndarray, *, show_goal: bool = False) -> None:
    data = {"rand_vec": vec, "env_cls": type(env), "partially_observable": not show_goal}
    env.set_task(Task(env_name="", data=pickle.dumps(data)))
