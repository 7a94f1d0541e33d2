"""What every MuJoCo task has to pass, whatever its body and its reward."""

from collections.abc import Callable

import pytest
from mujoco_checks import CHECKS

from envs.api import find_preset
from envs.mujoco_env import MujocoTask

pytestmark = pytest.mark.usefixtures("one_thread")

PRESETS = [
    ("ant_damaged", "nagabandi2019"),
    ("ant_rand_params", "v5"),
    ("cartpole_mass", "rllib"),
    ("half_cheetah_damaged", "nagabandi2019"),
    ("half_cheetah_damaged", "v5"),
    ("half_cheetah_rand_params", "v5"),
    ("hopper_rand_params", "promp"),
    ("hopper_rand_params", "v5"),
    ("pendulum_mass", "rllib"),
    ("walker2d_dir", "promp"),
    ("walker2d_rand_params", "promp"),
    ("walker2d_vel", "v5"),
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_what_every_task_has_to_pass(name: str, preset: str, check: Callable[[MujocoTask], None]) -> None:
    check(find_preset(name, preset))
