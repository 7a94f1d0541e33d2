"""Tasks as other libraries see them: Gymnasium's own checks, tasks and seeds, endings, vectors of worlds, pictures."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from mujoco.rendering.classic import gl_context
from pretend_cuda import pretend_cuda

from metarl.envs import camera, gymnasium_env
from metarl.envs.fields import BadField
from metarl.envs.gymnasium_env import GymnasiumEnv
from metarl.envs.metaworld import ML1
from metarl.envs.registry import TASKS, find_preset
from metarl.envs.vector_env import TaskVectorEnv

pytestmark = pytest.mark.usefixtures("one_thread")
INSIDE = {name: tasks for name, tasks in TASKS.items() if tasks.__module__.startswith("metarl.envs.")}
OURS = {name: f"metarl/{tasks.__name__}-v0" for name, tasks in INSIDE.items()}
GOALS = [[0.35, 0.2], [-0.4, 0.1], [0.05, -0.45]]


# --- Gymnasium's checks


@pytest.mark.parametrize("name", OURS)
def test_every_task_passes_gymnasiums_check_without_a_warning(name: str) -> None:
    """Warnings are errors here."""
    check_env(gymnasium.make(OURS[name]).unwrapped, skip_render_check=True)


def test_the_check_would_warn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium_env, "LARGEST", np.inf)
    with pytest.raises(UserWarning, match="infinity"):
        check_env(gymnasium.make("metarl/Navigation-v0").unwrapped, skip_render_check=True)


@pytest.mark.parametrize("name", ["navigation", "tabular_mdp", "half_cheetah_dir"])
def test_what_a_step_returns_is_the_callers(name: str) -> None:
    env = TaskVectorEnv(name, 2)
    env.reset(seed=0)
    action = np.array(env.action_space.sample())
    for values in env.step(action)[:4]:
        values[:] = 1
    _, _, terminated, truncated, _ = env.step(action)
    assert not (terminated | truncated).any()


def test_tasks_have_the_names_of_their_classes() -> None:
    assert {"metarl/HalfCheetahDir-v0", "metarl/AntGoal-v0", "metarl/TabularMDP-v0", "metarl/ML10-v0"} <= set(
        OURS.values()
    )
    assert set(OURS.values()) <= set(gymnasium.registry)


def test_a_program_that_knows_gymnasium_alone_makes_a_task() -> None:
    program = (
        "import gymnasium; env = gymnasium.make('metarl.envs:metarl/HalfCheetahDir-v0', preset='v5', task=-1.0); "
        "print(env.reset(seed=0)[1]['task'], gymnasium.make_vec('metarl.envs:metarl/Bandit-v0', num_envs=2).num_envs)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["-1.0", "2"], done.stderr


@pytest.mark.parametrize(("name", "preset"), [("half_cheetah_dir", "v5"), ("cartpole_mass", None), ("bandit", "k10")])
def test_spaces_are_those_of_the_spec(name: str, preset: str | None) -> None:
    env, spec = GymnasiumEnv(name, preset=preset), find_preset(name, preset).spec
    assert env.observation_space.shape == (spec.obs_dim,)
    assert env.observation_space.dtype == np.float32
    if spec.discrete:
        assert env.action_space == gymnasium.spaces.Discrete(spec.action_dim)
    else:
        assert env.action_space == gymnasium.spaces.Box(-1.0, 1.0, (spec.action_dim,), np.float32)


# --- tasks and seeds


def episode(env: gymnasium.Env, *, seed: int | None = None, steps: int = 3) -> list[Any]:
    """Task, first observation, then observation and reward of each step under one fixed action."""
    obs, info = env.reset(seed=seed)
    found = [info["task"], obs]
    for _ in range(steps):
        obs, reward, _, _, info = env.step(env.action_space.high * 0.5)
        found += [obs, reward, info["task"]]
    return found


def test_a_seed_decides_this_and_all_later_episodes() -> None:
    env, other = GymnasiumEnv("half_cheetah_vel"), GymnasiumEnv("half_cheetah_vel")
    first = [episode(env, seed=3), episode(env), episode(env)]
    again = [episode(env, seed=3), episode(env), episode(env)]
    elsewhere = [episode(other, seed=3), episode(other), episode(other)]
    for x, y, z in zip(first, again, elsewhere, strict=True):
        for a, b, c in zip(x, y, z, strict=True):
            assert np.array_equal(a, b)
            assert np.array_equal(a, c)
    assert episode(env, seed=4)[0] != first[0][0]


def test_each_reset_draws_a_new_task_and_a_new_first_state() -> None:
    env = GymnasiumEnv("half_cheetah_vel")
    episodes = [episode(env, seed=0), *(episode(env) for _ in range(4))]
    tasks = [float(found[0]) for found in episodes]
    assert len(set(tasks)) == 5
    assert all(0 <= task <= 2 for task in tasks)  # maml2017
    assert len({found[1].tobytes() for found in episodes}) == 5
    for task, found in zip(tasks, episodes, strict=True):  # info names the task of every step
        assert found[4::3] == [task] * 3


def test_a_chosen_task_is_played_in_every_episode_from_other_states() -> None:
    env = gymnasium.make("metarl/HalfCheetahVel-v0", task=1.25)
    episodes = [episode(env, seed=0), episode(env), episode(env, seed=1)]
    assert [found[0].tolist() for found in episodes] == [1.25] * 3
    assert len({found[1].tobytes() for found in episodes}) == 3


def test_the_task_decides_the_reward() -> None:
    """The direction is its sign, apart from the control cost 0.05 x 6 x 0.25 = 0.075 (promp)."""
    forward, backward = (episode(GymnasiumEnv("half_cheetah_dir", preset="promp", task=d), seed=5) for d in (1, -1))
    for a, b in zip(forward[3::3], backward[3::3], strict=True):
        assert a + b == pytest.approx(-0.15, abs=1e-6)
        assert abs(a - b) > 1e-3


def test_a_reset_may_ask_for_the_task_of_its_episode() -> None:
    env = GymnasiumEnv("navigation")
    env.reset(seed=0)
    _, info = env.reset(options={"task": GOALS[0]})
    assert info["task"] == pytest.approx(GOALS[0])
    _, info = env.reset()
    assert info["task"] != pytest.approx(GOALS[0])


def test_infos_handed_out_do_not_change_the_task() -> None:
    env = GymnasiumEnv("navigation", task=GOALS[0])
    _, info = env.reset()
    info["task"][:] = 99.0
    assert env.reset()[1]["task"] == pytest.approx(GOALS[0])


def test_fields_of_the_distribution_are_options() -> None:
    env = gymnasium.make("metarl/ML1-v0", env="push-v3", horizon=7).unwrapped
    assert env.tasks == ML1(env="push-v3", horizon=7)
    assert env.tasks.labels(torch.from_numpy(env.reset(seed=0)[1]["task"])[None]) == ["push-v3"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("navigation", {"task": [1.0, 2.0, 3.0]}, r"task has shape \(3,\): navigation needs finite numbers of shape"),
        ("navigation", {"task": [np.nan, 0.0]}, r"task is .*nan.*: navigation needs"),
        ("half_cheetah_vel", {"task": "fast"}, r"task is 'fast': half_cheetah_vel needs a number, such as"),
        ("half_cheetah_vel", {"task": [[1.0], [2.0, 3.0]]}, "half_cheetah_vel needs a number"),
        ("half_cheetah_vel", {"preset": "v6"}, "preset is 'v6': half_cheetah_vel has maml2017"),
        ("half_cheetah_vel", {"hrizon": 5}, "hrizon is no option of half_cheetah_vel: use task, preset, or one of hor"),
        ("half_cheetah_vel", {"horizon": 0}, "horizon is 0"),
        ("no_task", {}, "task is 'no_task': use one of"),
        ("bandit", {"render_mode": "rgb_array"}, "render_mode is 'rgb_array': use None for bandit"),
    ],
)
def test_what_cannot_work_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GymnasiumEnv(name, **options)


def test_options_of_reset_that_nothing_reads_are_refused() -> None:
    for env in (GymnasiumEnv("navigation"), TaskVectorEnv("navigation", 2)):
        with pytest.raises(BadField, match="options has goal"):
            env.reset(options={"goal": GOALS[0]})


# --- actions and endings


def test_a_discrete_action_is_an_index() -> None:
    """In this MDP action a leads to state a and earns 10 a; rewards have noise of standard deviation 1."""
    task = np.zeros((10, 5, 11))
    task[:, range(5), range(5)] = 1.0
    task[:, :, 10] = 10 * np.arange(5)
    env = GymnasiumEnv("tabular_mdp", task=task)
    env.reset(seed=0)
    for action in (3, np.int64(1), np.array(4)):
        obs, reward, *_ = env.step(action)
        assert obs.argmax() == action
        assert reward == pytest.approx(10 * int(action), abs=5)


def test_actions_are_clipped() -> None:
    env = GymnasiumEnv("navigation", task=GOALS[0])
    env.reset()
    obs, *_ = env.step(np.array([7.0, -0.5]))
    assert obs == pytest.approx([0.1, -0.05])


def test_the_time_limit_truncates_once() -> None:
    env = gymnasium.make("metarl/HalfCheetahDir-v0", horizon=3)
    assert "TimeLimit" not in str(env)
    for _ in range(2):
        env.reset(seed=0)
        flags = [env.step(env.action_space.sample())[2:4] for _ in range(3)]
        assert flags == [(False, False), (False, False), (False, True)]
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(env.action_space.sample())


def test_the_last_observation_is_that_of_the_episode_that_ended() -> None:
    env = GymnasiumEnv("navigation", task=GOALS[0], horizon=2)
    env.reset()
    env.step(np.ones(2))
    assert env.step(np.ones(2))[0] == pytest.approx([0.2, 0.2])
    assert env.reset()[0].tolist() == [0, 0]


def test_arriving_terminates_and_succeeds() -> None:
    env = GymnasiumEnv("navigation", task=[0.15, 0.0])
    env.reset()
    _, _, terminated, truncated, info = env.step(np.array([1.0, 0.0]))
    assert (terminated, truncated, info["success"], info["diverged"]) == (False, False, False, False)
    _, reward, terminated, truncated, info = env.step(np.array([0.5, 0.0]))
    assert (terminated, truncated, info["success"]) == (True, False, True)
    assert reward == pytest.approx(0.0, abs=1e-6)


def test_a_pull_of_a_bandit_is_an_episode_that_terminates() -> None:
    env = GymnasiumEnv("bandit", task=[0, 0, 1, 0, 0])
    for arm in range(5):
        env.reset()
        assert env.step(arm)[1:4] == (float(arm == 2), True, False)


def test_failed_physics_truncates_and_says_so() -> None:
    env = GymnasiumEnv("half_cheetah_dir")
    env.reset(seed=0)
    env.step(np.zeros(6))
    env._env.worlds.physics.bind("qpos")[0, 1] = float("nan")
    obs, reward, terminated, truncated, info = env.step(np.zeros(6))
    assert (reward, terminated, truncated, info["diverged"]) == (0.0, False, True, True)
    assert obs in env.observation_space


# --- vectors of worlds


def same_infos(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """What theirs has ours has, in the same worlds."""
    for name, value in theirs.items():
        if name.startswith("_"):
            assert ours[name].tolist() == value.tolist(), name
        elif isinstance(value, dict):
            same_infos(ours[name], value)
        else:
            assert ours[name].dtype == value.dtype
            for a, b in zip(ours[name], value, strict=True):
                assert np.array_equal(a, b), name


def play_beside(ours: TaskVectorEnv, theirs: VectorEnv, act: Callable[[np.ndarray], np.ndarray], steps: int) -> int:
    """Steps both with the same actions and compares everything; returns how many episodes ended."""
    (obs, info), (expected, expected_info) = ours.reset(seed=0), theirs.reset(seed=0)
    num_ended = 0
    for _ in range(steps):
        assert np.array_equal(obs, expected)
        assert obs.dtype == expected.dtype
        same_infos(info, expected_info)
        actions = act(obs)
        obs, *numbers, info = ours.step(actions)
        expected, *expected_numbers, expected_info = theirs.step(actions)
        for a, b in zip(numbers, expected_numbers, strict=True):
            assert np.array_equal(a, b)
            assert a.dtype == b.dtype
        num_ended += int((numbers[1] | numbers[2]).sum())
    return num_ended


def singles(name: str, tasks: Any, **options: Any) -> SyncVectorEnv:
    """A plain loop over single worlds, as Gymnasium restarts them."""
    worlds = [lambda task=task: GymnasiumEnv(name, task=task, **options) for task in tasks]
    return SyncVectorEnv(worlds, autoreset_mode=AutoresetMode.SAME_STEP)


def test_points_equal_a_loop_of_single_ones() -> None:
    """The first walks to its goal, (4, 2) steps of 0.1 and a half, and terminates; the others play to the limit."""
    draws = np.random.default_rng(0)

    def act(obs: np.ndarray) -> np.ndarray:
        actions = draws.uniform(-1.2, 1.2, (3, 2)).astype(np.float32)
        actions[0] = (np.array(GOALS[0]) - obs[0]) / 0.1
        return actions

    options = {"horizon": 11}
    ours = TaskVectorEnv("navigation", 3, task=GOALS, **options)
    assert play_beside(ours, singles("navigation", GOALS, **options), act, steps=40) == 10 + 3 + 3


@pytest.mark.parametrize("threads", [1, 2])
def test_arms_equal_a_loop_of_single_ones(threads: int) -> None:
    """Every episode of a goal begins in the same state, so that worlds side by side compare."""
    goals = find_preset("ml10").published_tasks(3)  # drawers, doors and shelves
    ours = TaskVectorEnv("ml10", 3, task=goals, horizon=5, num_threads=threads)
    draws = np.random.default_rng(0)
    theirs = singles("ml10", goals, horizon=5)
    assert play_beside(ours, theirs, lambda obs: draws.uniform(-1, 1, (3, 4)).astype(np.float32), steps=11) == 6


@pytest.mark.parametrize("name", ["half_cheetah_vel", "walker2d_rand_params", "cartpole_mass", "tabular_mdp", "bandit"])
def test_one_world_repeats_the_single_environment(name: str) -> None:
    """Bit for bit, with the same seed: drawn tasks, first states, payoffs, until the first automatic reset."""
    ours, single = TaskVectorEnv(name), GymnasiumEnv(name)
    ours.action_space.seed(0)
    for seed in (7, None):
        (obs, info), (expected, expected_info) = ours.reset(seed=seed), single.reset(seed=seed)
        assert np.array_equal(info["task"][0], expected_info["task"])
        for _ in range(5):
            assert np.array_equal(obs[0], expected)
            action = ours.action_space.sample()
            obs, reward, terminated, truncated, _ = ours.step(action)
            expected, *numbers, _ = single.step(action[0])
            assert [reward[0], terminated[0], truncated[0]] == numbers
            if terminated[0] or truncated[0]:
                break


def test_worlds_of_a_task_lie_side_by_side_and_keep_it_until_a_reset() -> None:
    env = TaskVectorEnv("half_cheetah_vel", 6, num_tasks=3, horizon=2)
    _, info = env.reset(seed=1)
    tasks = info["task"]
    assert tasks[0::2].tolist() == tasks[1::2].tolist()
    assert len(set(tasks.tolist())) == 3
    for _ in range(5):
        obs, *_, info = env.step(np.zeros((6, 6), np.float32))
        assert info["task"].tolist() == tasks.tolist()
    assert len({row.tobytes() for row in obs}) == 6  # first states are drawn one by one
    assert env.reset()[1]["task"].tolist() != tasks.tolist()
    assert env.reset(seed=1)[1]["task"].tolist() == tasks.tolist()
    chosen = env.reset(options={"task": [0.5, 1.0, 1.5]})[1]["task"]
    assert chosen.tolist() == [0.5, 0.5, 1.0, 1.0, 1.5, 1.5]
    assert env.reset(options={"task": 0.5})[1]["task"].tolist() == [0.5] * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"num_envs": 4, "num_tasks": 3}, "num_tasks is 3: use a number that divides"),
        ({"num_envs": 4, "num_tasks": 0}, "num_tasks is 0"),
        ({"num_envs": 4, "task": GOALS}, r"task has shape \(3, 2\): navigation needs .* or 4 of them"),
        ({"max_episode_steps": 5}, "max_episode_steps is no option of navigation"),
    ],
)
def test_vectors_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadField, match=message):
        TaskVectorEnv("navigation", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: nothing to pretend")
@pytest.mark.parametrize("name", ["navigation", "tabular_mdp"])
def test_a_device_changes_no_number(name: str) -> None:
    def play(device: str) -> list[np.ndarray]:
        env = TaskVectorEnv(name, 4, num_tasks=2, device=device, horizon=3)
        env.action_space.seed(0)
        first, info = env.reset(seed=0)
        return [first, info["task"]] + [x for _ in range(4) for x in env.step(env.action_space.sample())[:4]]

    on_cpu = play("cpu")
    with pretend_cuda():
        on_cuda = play("cuda")
    for a, b in zip(on_cpu, on_cuda, strict=True):
        assert np.array_equal(a, b)


def test_stepping_before_the_first_reset_is_refused() -> None:
    for env in (GymnasiumEnv("navigation"), TaskVectorEnv("navigation", 2)):
        with pytest.raises(gymnasium.error.ResetNeeded):
            env.step(env.action_space.sample())


@pytest.mark.parametrize("mode", ["vector_entry_point", "sync", None])
def test_gymnasium_makes_vectors(mode: str | None) -> None:
    env = gymnasium.make_vec("metarl/CartPoleMass-v0", num_envs=4, vectorization_mode=mode, horizon=50)
    assert isinstance(env, SyncVectorEnv if mode == "sync" else TaskVectorEnv)
    assert env.action_space == gymnasium.spaces.MultiDiscrete([2] * 4)
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    assert env.step(env.action_space.sample())[0].shape == (4, 4)
    env.close()


def test_gymnasiums_wrapper_counts_episodes_as_they_were() -> None:
    """20 steps of at most 8: returns and lengths against sums of our own."""
    env = RecordEpisodeStatistics(gymnasium.make_vec("metarl/Navigation-v0", num_envs=3, task=GOALS, horizon=8))
    env.reset(seed=0)
    sums, lengths, expected = np.zeros(3), np.zeros(3, int), []
    draws = np.random.default_rng(0)
    for _ in range(20):
        _, reward, terminated, truncated, info = env.step(draws.uniform(-1, 1, (3, 2)).astype(np.float32))
        sums, lengths = sums + reward, lengths + 1
        ended = terminated | truncated
        assert info.get("_episode", np.zeros(3, np.bool_)).tolist() == ended.tolist()
        expected += [(sums[world], lengths[world]) for world in np.flatnonzero(ended)]
        sums[ended], lengths[ended] = 0, 0
    assert [length for _, length in expected] == [8] * 6
    assert list(env.length_queue) == [8] * 6
    assert list(env.return_queue) == pytest.approx([total for total, _ in expected])


# --- pictures


@pytest.fixture
def graphics(monkeypatch: pytest.MonkeyPatch) -> None:
    if camera.find_backend() is None:
        pytest.skip("no OpenGL on this machine")
    monkeypatch.setattr("mujoco.rendering.classic.gl_context.GLContext", None)  # puts back what was there, in the end


def test_pictures_show_the_state_and_the_task(graphics: None) -> None:
    env = gymnasium.make("metarl/AntGoal-v0", preset="v5", render_mode="rgb_array", task=[1.0, 0.5])
    assert env.metadata["render_fps"] == pytest.approx(20)  # 5 substeps of 0.01 s
    env.reset(seed=0)
    first = env.render()
    assert (first.shape, first.dtype) == ((480, 480, 3), np.uint8)
    assert np.array_equal(first, env.render())
    for _ in range(5):
        env.step(env.action_space.sample())
    moved = env.render()
    assert (moved != first).mean() > 0.01
    env.reset(seed=0)
    assert np.array_equal(env.render(), first)
    env.reset(seed=0, options={"task": [-1.0, 0.5]})
    assert not np.array_equal(env.render(), first)
    env.close()


def test_the_last_picture_is_none_of_the_next_episode(graphics: None) -> None:
    env = GymnasiumEnv("pendulum_mass", render_mode="rgb_array", horizon=2)
    env.reset(seed=0)
    env.step(np.ones(1))
    before = env.render()
    env.step(np.ones(1))
    assert np.array_equal(env.render(), before)
    env.close()
    env.close()


def test_without_graphics_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise mujoco.FatalError("no display")

    env = GymnasiumEnv("half_cheetah_dir", render_mode="rgb_array")
    env.reset(seed=0)
    for name, failing in (("Renderer", fail), ("no backend", None)):
        with monkeypatch.context() as patch:
            if failing is None:
                patch.setattr(camera, "PROBE", "raise SystemExit(1)")
            else:
                patch.setattr(mujoco, name, failing)
                patch.setattr(camera, "find_backend", lambda: "egl")
                patch.setattr(camera.importlib, "import_module", lambda _: gl_context)
                patch.setattr(gl_context, "GLContext", None)
            with pytest.raises(
                gymnasium.error.DependencyNotInstalled, match="install the packages libosmesa6, or libegl"
            ):
                env.render()


@pytest.mark.parametrize(
    "asked",
    [{"MUJOCO_GL": "glfw"}, *(pytest.param(asked, marks=pytest.mark.slow) for asked in ({}, {"MUJOCO_GL": ""}))],
    ids=str,
)
def test_fault_33_pictures_find_opengl_by_themselves(asked: dict[str, str]) -> None:
    """A program without MUJOCO_GL, or with one that cannot work, of a machine that could draw."""
    if camera.find_backend() is None:
        pytest.skip("no OpenGL on this machine")
    program = (
        "import envs; env = envs.GymnasiumEnv('pendulum_mass', render_mode='rgb_array'); env.reset(seed=0); "
        "print(env.render().any()); env.close()"
    )
    variables = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "DISPLAY")} | asked
    done = subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr


def test_a_backend_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "PROBE", "raise SystemExit(0)  # of this test")
    found = camera.find_backend()
    monkeypatch.setattr(camera.subprocess, "run", None)
    assert camera.find_backend() == found
