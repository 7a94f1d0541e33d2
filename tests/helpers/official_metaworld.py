"""Meta-World's own environments, the oracle of our port: one world, in Python, patched where it crashes."""

import pickle
from typing import Any

import mujoco
import numpy as np
from metaworld import ALL_V3_ENVIRONMENTS, SawyerXYZEnv, Task
from metaworld.sawyer_xyz_env import SawyerMocapBase
from numpy.typing import NDArray

from metarl.envs.metaworld.simulation import WELD

TERMS = ("near_object", "grasp_reward", "in_place_reward", "obj_to_target", "success", "unscaled_reward")


def _reset_mocap_welds(self: Any) -> None:
    """Meta-World's writes 11 numbers into the 12 columns of MuJoCo >= 3.17, which raises."""
    welds = self.model.eq_type == mujoco.mjtEq.mjEQ_WELD
    self.model.eq_data[welds, : len(WELD)] = WELD


SawyerMocapBase.reset_mocap_welds = _reset_mocap_welds


def official(name: str, vec: NDArray[np.float64], *, show_goal: bool = False) -> SawyerXYZEnv:
    """A new environment ``name``, with the random vector ``vec`` set as its task and reset once."""
    env = ALL_V3_ENVIRONMENTS[name](reward_function_version="v1")  # assembly's reset then prepares that one, too
    data = {"rand_vec": vec, "env_cls": type(env), "partially_observable": not show_goal}
    env.set_task(Task(env_name=name, data=pickle.dumps(data)))
    return env


def terms(env: SawyerXYZEnv, version: str, obs: NDArray[np.float64], action: NDArray[np.float64]) -> dict[str, float]:
    """Reward and info of the state that ``obs`` was observed in, by that version of the reward."""
    env.reward_function_version = version
    reward, info = env.evaluate_state(obs, action)
    return {"reward": float(reward), **{name: float(info[name]) for name in TERMS}}
