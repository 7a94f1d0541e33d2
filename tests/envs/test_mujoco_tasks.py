"""What every MuJoCo task has to pass, whatever its body and its reward."""

from collections.abc import Callable

import pytest
import torch
from mujoco_checks import CHECKS, bits_of, make_worlds, put, qpos_and_qvel, random_actions, start

from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.registry import TASKS, find_preset

pytestmark = pytest.mark.usefixtures("one_thread")

PRESETS = [
    ("ant_damaged", "nagabandi2019"),
    ("ant_dir", "maml2017"),
    ("ant_dir", "varibad"),
    ("ant_dir_2d", "pearl"),
    ("ant_goal", "promp"),
    ("ant_rand_params", "v5"),
    ("ant_vel", "v5"),
    ("cartpole_mass", "rllib"),
    ("half_cheetah_damaged", "nagabandi2019"),
    ("half_cheetah_damaged", "v5"),
    ("half_cheetah_dir", "maml2017"),
    ("half_cheetah_dir", "v5"),
    ("half_cheetah_rand_params", "v5"),
    ("half_cheetah_vel", "maml2017"),
    ("half_cheetah_vel", "v5"),
    ("hopper_rand_params", "promp"),
    ("hopper_rand_params", "v5"),
    ("humanoid_dir", "promp"),
    ("humanoid_dir", "v5_2d"),
    ("pendulum_mass", "rllib"),
    ("swimmer_vel", "maml2017"),
    ("swimmer_vel", "v5"),
    ("walker2d_dir", "promp"),
    ("walker2d_rand_params", "promp"),
    ("walker2d_vel", "v5"),
]


def test_no_task_is_missing() -> None:
    ours = {
        name
        for name, task in TASKS.items()
        if issubclass(task, MujocoTask) and task.__module__.startswith("metarl.envs.")
    }
    assert {name for name, _ in PRESETS} == ours


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_what_every_task_has_to_pass(name: str, preset: str, check: Callable[[MujocoTask], None]) -> None:
    check(find_preset(name, preset))


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        *(("half_cheetah_dir", preset) for preset in ("maml2017", "promp", "v5")),
        *(("half_cheetah_vel", preset) for preset in ("maml2017", "promp", "v5")),
        ("walker2d_dir", "v5"),
        ("walker2d_vel", "v5"),
    ],
)
def test_the_goal_cannot_be_seen(name: str, preset: str) -> None:
    """Two goals, one initial state and the same actions: the same observations for 50 steps, other rewards."""
    task = find_preset(name, preset)
    worlds = make_worlds(task, 2)
    worlds.set_tasks(torch.tensor([-1.0, 1.0]))
    start(worlds)
    qpos, qvel = qpos_and_qvel(worlds)
    put(worlds, qpos[0], qvel[0])
    assert torch.equal(*worlds.observe())
    obs, reward = bits_of(worlds, random_actions(task, 50, 1).expand(50, 2, -1))
    assert torch.equal(obs[:, 0], obs[:, 1])
    assert (reward[:, 0] != reward[:, 1]).all()
