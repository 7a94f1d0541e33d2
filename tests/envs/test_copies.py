"""Copies and pickles of environments continue where they were taken, with the same bits, each by itself."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.registry import find_preset
from metarl.envs.vector_env import TaskVectorEnv
from metarl.envs.worlds import BatchedTaskEnv

pytestmark = pytest.mark.usefixtures("one_thread")
FEW = ["navigation", "bandit", "tabular_mdp", "half_cheetah_rand_params", "cartpole_mass", "ml10"]
NAMES = [*FEW, "ant_goal", "humanoid_dir", "walker2d_vel", "pendulum_gravity", "minigrid_goal"]
COPIES: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda env: pickle.loads(pickle.dumps(env)),
    "pickle of an old protocol": lambda env: pickle.loads(pickle.dumps(env, protocol=2)),
}


def play(env: Any, steps: int = 4) -> list[bytes]:
    """All that an environment of Gymnasium tells, until an episode ends and in the next one."""
    env.action_space.seed(1)
    found: list[Any] = []
    for _ in range(steps):
        step = env.step(env.action_space.sample())
        found.append(step)
        if isinstance(env, gymnasium.Env) and (step[2] or step[3]):
            found.append(env.reset())
    found.append(env.reset())
    arrays = [np.asarray(x) for x in tree_leaves(found)]
    rows = [row for array in arrays for row in (array if array.dtype == object and array.ndim else [array])]
    return [np.asarray(row, np.float64).tobytes() for row in rows if row is not None]


def vector(name: str) -> TaskVectorEnv:
    return TaskVectorEnv(name, 4, num_tasks=2, num_threads=1, horizon=3)


@pytest.mark.parametrize("make", [GymnasiumEnv, vector], ids=["single", "vector"])
@pytest.mark.parametrize("name", NAMES)
def test_fault_35_a_copy_continues_with_the_same_bits(name: str, make: Callable[[str], Any]) -> None:
    env = make(name)
    env.reset(seed=3)
    if name != "bandit" or make is vector:  # a pull is an episode
        env.step(env.action_space.sample())
    other = copy.deepcopy(env)
    expected = play(env)  # the copy does not go along
    assert play(other) == expected
    assert play(env) != expected
    assert play(other) != expected


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", FEW)
def test_fault_35_every_way_to_copy_does(name: str, way: str) -> None:
    for env in (GymnasiumEnv(name), vector(name)):
        env.reset(seed=3)
        other = COPIES[way](env)
        third = COPIES[way](other)  # a copy of a copy
        expected = play(env)
        assert play(other) == expected
        assert play(third) == expected


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", FEW)
def test_fault_35_before_the_first_reset_it_can_be_copied_too(name: str, way: str) -> None:
    for env in (GymnasiumEnv(name), vector(name)):
        other = COPIES[way](env)
        with pytest.raises(gymnasium.error.ResetNeeded):
            other.step(env.action_space.sample())
        assert np.array_equal(other.reset(seed=5)[0], env.reset(seed=5)[0])
        assert play(other) == play(env)


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("name", FEW)
def test_fault_35_so_can_the_batched_environment_of_pytorch(name: str, way: str) -> None:
    task = find_preset(name)
    env = task.make(2, 2, seed=7, num_threads=1)
    assert isinstance(COPIES[way](env), BatchedTaskEnv)  # before there are tasks
    env.set_tasks(task.sample(2, torch.Generator().manual_seed(0)))
    with pytest.raises(gymnasium.error.ResetNeeded):
        COPIES[way](env).step(torch.zeros(2, 2, env.spec.action_dim))
    env.reset()
    action = torch.eye(env.spec.action_dim)[torch.zeros(2, 2, dtype=torch.int64)]
    for _ in range(3):
        env.step(action)
    other = COPIES[way](env)
    for _ in range(env.spec.horizon if env.spec.horizon < 50 else 5):
        for a, b in zip(env.step(action), other.step(action), strict=True):
            assert torch.equal(a, b)
        assert torch.equal(env.clock, other.clock)
    assert torch.equal(env.reset(), other.reset())
    assert (int(env.num_diverged), env.num_overflowed) == (int(other.num_diverged), other.num_overflowed)


def test_fault_35_a_planner_tries_actions_on_copies() -> None:
    env = GymnasiumEnv("half_cheetah_vel", task=1.0)
    env.reset(seed=0)
    tries = [copy.deepcopy(env).step(np.full(6, a, np.float32))[1] for a in (-1.0, 0.0, 1.0)]
    assert len(set(tries)) == 3
    assert env.step(np.zeros(6, np.float32))[1] == tries[1]


def _in_a_worker(env: GymnasiumEnv) -> list[bytes]:
    return play(env)


def test_fault_35_a_worker_process_goes_on() -> None:
    env = GymnasiumEnv("pendulum_mass")
    env.reset(seed=2)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(_in_a_worker, (env,))
    assert there == play(env)


def test_fault_35_a_rendering_environment_leaves_its_camera_behind() -> None:
    env = GymnasiumEnv("pendulum_mass", render_mode="rgb_array")
    env.reset(seed=2)
    env._camera = object()  # as after render()
    other = copy.deepcopy(env)
    assert other._camera is None
    assert np.array_equal(other._pose, env._pose)


def test_fault_35_tasks_and_generators_are_the_copys_own() -> None:
    env = GymnasiumEnv("navigation")
    env.reset(seed=0)
    other = copy.deepcopy(env)
    for mine, its in ((env._generator, other._generator), (env.np_random, other.np_random), (env._task, other._task)):
        assert mine is not its
    other.reset(seed=9)
    third, fourth = copy.deepcopy(env), env
    assert third.reset()[1]["task"].tolist() == fourth.reset()[1]["task"].tolist()


def test_fault_35_an_environment_without_a_recipe_says_so() -> None:
    env = find_preset("navigation").make(1, 1, seed=0)
    env.rebuild = None
    with pytest.raises(TypeError, match="not built by its distribution's make"):
        copy.deepcopy(env)


def test_fault_35_warps_worlds_are_copied_too() -> None:
    pytest.importorskip("mujoco_warp")
    env = find_preset("pendulum_mass").make(1, 2, seed=0, physics="warp")
    env.set_tasks(torch.tensor([1.0]))
    env.reset()
    env.step(torch.ones(1, 2, 1))
    other = copy.deepcopy(env)
    for _ in range(3):
        for a, b in zip(env.step(torch.ones(1, 2, 1)), other.step(torch.ones(1, 2, 1)), strict=True):
            assert torch.equal(a, b)
