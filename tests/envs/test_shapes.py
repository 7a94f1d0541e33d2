"""Actions and tasks of other shapes are refused, as Gymnasium's own environments refuse them: with a ValueError."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from metarl.envs.fields import BadField
from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.registry import find_preset
from metarl.envs.vector_env import TaskVectorEnv

SINGLE = [np.zeros(shape) for shape in ((3, 2), (1, 6), (6, 1), (5,), (7,), (), (0,), (2, 3))]
SINGLE += [[[0, 0, 0], [0, 0, 0]], 0.0, None, "left", [[0.0], [0.0, 0.0]], [None] * 6, ["a"] * 6, np.zeros(6, complex)]
SINGLE += [np.full(6, np.nan), np.array([0, 0, np.nan, 0, 0, 0], np.float32), {"action": np.zeros(6)}]


@pytest.mark.parametrize("action", SINGLE, ids=str)
def test_fault_05_a_single_world_takes_its_own_shape_alone(action: Any) -> None:
    ours, theirs = GymnasiumEnv("half_cheetah_vel"), gymnasium.make("HalfCheetah-v5").unwrapped
    ours.reset(seed=0), theirs.reset(seed=0)
    with pytest.raises(BadField, match="action"):
        ours.step(action)
    if np.shape(action if not isinstance(action, list) else 0) not in ((6,), ()):
        with pytest.raises(ValueError, match="Action dimension mismatch"):
            theirs.step(action)
    assert ours.step(np.zeros(6))[0].shape == (20,)  # it goes on


@pytest.mark.parametrize(
    "action",
    [
        np.zeros(6),
        [0.0] * 6,
        (0,) * 6,
        np.zeros(6, int),
        torch.zeros(6),
        np.zeros(12)[::-2],
        np.zeros(6, ">f4"),
        np.ones(6, bool),
    ],
)
def test_fault_05_whatever_has_the_shape_is_taken(action: Any) -> None:
    env = GymnasiumEnv("half_cheetah_vel")
    env.reset(seed=0)
    assert env.step(action)[0].shape == (20,)


def test_fault_05_infinite_actions_are_clipped_as_any_beyond_one() -> None:
    env = GymnasiumEnv("navigation", task=[0.4, 0.4])
    env.reset(seed=0)
    assert env.step([np.inf, -np.inf])[0] == pytest.approx([0.1, -0.1])


@pytest.mark.parametrize("shape", [(6, 4), (24,), (2, 2, 6), (1, 6), (5, 6), (3, 6), (4, 5), (4, 6, 1), (0, 6), ()])
def test_fault_05_worlds_take_their_own_shape_alone(shape: tuple[int, ...]) -> None:
    env = TaskVectorEnv("half_cheetah_vel", 4, num_tasks=2, num_threads=1)
    env.reset(seed=0)
    with pytest.raises(BadField, match=r"action has shape \(.*\): use \(4, 6\)"):
        env.step(np.zeros(shape, np.float32))
    env.step(np.zeros((4, 6), np.float32))


@pytest.mark.parametrize("action", [-1, 5, 1.0, np.float32(2), np.nan, [1], np.array([1]), "1", 2**40, None])
def test_fault_05_an_index_is_a_whole_number_of_an_arm(action: Any) -> None:
    env = GymnasiumEnv("bandit")
    env.reset(seed=0)
    with pytest.raises(BadField, match="action"):
        env.step(action)
    assert not env.action_space.contains(action)
    env.step(np.uint8(4))


@pytest.mark.parametrize("actions", [[0, 1, 5], [0, 1, -1], [0.0, 1.0, 2.0], [0, 1], [[0], [1], [2]], np.eye(3, 5)])
def test_fault_05_indices_are_whole_numbers_of_arms(actions: Any) -> None:
    env = TaskVectorEnv("bandit", 3)
    env.reset(seed=0)
    with pytest.raises(BadField, match="action"):
        env.step(np.array(actions))
    env.step(np.array([0, 1, 4]))


@pytest.mark.parametrize("shape", [(2, 3, 1), (3, 2, 2), (1, 3, 2), (2, 1, 2), (2, 3, 4), (2, 3, 0)])
def test_fault_05_the_batched_environment_takes_its_own_shape_alone(shape: tuple[int, ...]) -> None:
    env = find_preset("navigation").make(2, 3, seed=0)
    env.set_tasks(torch.zeros(2, 2))
    env.reset()
    with pytest.raises(BadField, match=r"action has shape \(.*\): use \(2, 3, 2\)"):
        env.step(torch.zeros(shape))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("navigation", (2, 3)),
        ("navigation", (3, 2)),
        ("navigation", (2,)),
        ("half_cheetah_vel", (2, 1)),
        ("half_cheetah_vel", (1,)),
        ("bandit", (2, 4)),
        ("tabular_mdp", (2, 10, 5, 10)),
        ("walker2d_rand_params", (2, 3)),
        ("ml1", (2, 6)),
    ],
)
def test_fault_05_tasks_of_another_shape_are_refused(name: str, shape: tuple[int, ...]) -> None:
    env = find_preset(name).make(2, 3, seed=0)
    with pytest.raises(BadField, match="tas"):
        env.set_tasks(torch.zeros(shape))
    with pytest.raises(BadField, match="task"):
        TaskVectorEnv(name, 6, num_tasks=2, task=np.zeros((*shape, 3)))
    with pytest.raises(BadField, match="task"):
        GymnasiumEnv(name).reset(options={"task": np.zeros((*shape, 3))})


def test_fault_05_the_number_of_an_environment_is_whole() -> None:
    env = find_preset("ml1").make(1, 1, seed=0)
    for number in (0.5, -1.0, 50.0, float("nan")):
        with pytest.raises(BadField, match="task begins with"):
            env.set_tasks(torch.tensor([[number, 0, 0, 0, 0, 0, 0]]))


@pytest.mark.parametrize("name", ["navigation", "half_cheetah_vel", "ml1"])
def test_fault_05_a_step_before_a_reset_is_refused(name: str) -> None:
    task = find_preset(name)
    env, action = task.make(2, 1, seed=0), torch.zeros(2, 1, task.spec.action_dim)
    for prepare in (lambda: None, lambda: env.set_tasks(task.sample(2, torch.Generator().manual_seed(0)))):
        prepare()
        with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
            env.step(action)
    env.reset()
    env.step(action)
    env.set_tasks(task.sample(2, torch.Generator().manual_seed(1)))  # new tasks need a new reset
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(action)


@pytest.mark.parametrize(("num_tasks", "num_envs"), [(0, 1), (1, 0), (-1, 2), (2**31, 1), (1, 2**40), (1.5, 1)])
def test_fault_31_worlds_that_cannot_be_are_refused(num_tasks: Any, num_envs: Any) -> None:
    task = find_preset("navigation")
    make = getattr(type(task).make, "__wrapped__", None) or type(task).make
    with pytest.raises(BadField, match=r"num_(tasks|envs) is .*: use at least 1 and at most"):
        make(task, num_tasks, num_envs, seed=0)


def test_an_unknown_option_is_also_a_type_error() -> None:
    """As of a function that does not know an argument."""
    with pytest.raises(TypeError, match="hrizon is no option of navigation"):
        GymnasiumEnv("navigation", hrizon=5)
    with pytest.raises(ValueError, match="hrizon is no option of navigation"):
        TaskVectorEnv("navigation", 2, hrizon=5)
    with pytest.raises(TypeError, match="options has seed"):
        GymnasiumEnv("navigation").reset(options={"seed": 1})


def test_success_is_told_by_both_names() -> None:
    env, worlds = GymnasiumEnv("navigation", task=[0.05, 0.0]), TaskVectorEnv("navigation", 2, task=[0.05, 0.0])
    env.reset(), worlds.reset()
    info, infos = env.step([0.5, 0.0])[-1], worlds.step(np.array([[0.5, 0.0], [0.0, 0.5]]))[-1]
    assert info["success"] is info["is_success"] is True
    assert infos["final_info"]["is_success"].tolist() == infos["final_info"]["success"].tolist() == [True, False]
    assert "is_success" not in GymnasiumEnv("bandit").reset()[1]


def test_the_way_of_automatic_resets_is_told_by_both_places() -> None:
    env = TaskVectorEnv("navigation", 2)
    assert env.autoreset_mode is env.metadata["autoreset_mode"] is gymnasium.vector.AutoresetMode.SAME_STEP
