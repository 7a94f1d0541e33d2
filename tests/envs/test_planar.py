"""The walker's and the hopper's tasks against gymnasium's environments and a plain loop over edited models."""

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import (
    Array,
    beside_plain_loops,
    make_worlds,
    put,
    qpos_and_qvel,
    random_actions,
    sample,
    scale_model,
    start,
)

from metarl.envs.fields import BadField
from metarl.envs.mujoco_task import ASSETS
from metarl.envs.registry import find_preset

pytestmark = pytest.mark.usefixtures("one_thread")

WALKERS = ("walker2d_rand_params", "walker2d_dir", "walker2d_vel")
HOPPER = "hopper_rand_params"
BOTH = ("walker2d_rand_params", HOPPER)
PRESETS = [(name, preset) for name in (*WALKERS, HOPPER) for preset in ("promp", "v5")]


# --- v5: gymnasium's own environments are the oracle


@pytest.mark.parametrize(
    ("name", "gym_id"),
    [("walker2d_rand_params", "Walker2d-v5"), ("walker2d_dir", "Walker2d-v5"), (HOPPER, "Hopper-v5")],
)
def test_v5_is_gymnasiums_environment_where_the_task_changes_nothing(name: str, gym_id: str) -> None:
    """Multipliers of one or direction +1, for 100 steps, of which most are after the fall; observations to the bit."""
    env = gymnasium.make(gym_id).unwrapped
    first, _ = env.reset(seed=0)
    task = find_preset(name, "v5")
    if name in BOTH:
        task = replace(task, scale_limit=0.0)
    worlds = make_worlds(task, 3)
    worlds.set_tasks(torch.ones_like(sample(task, 3)))
    put(worlds, env.data.qpos, env.data.qvel)
    assert torch.equal(worlds.observe()[1], torch.from_numpy(first))
    falls = 0
    for t, action in enumerate(random_actions(task, 100)):
        obs, reward, terminated, *_ = env.step(action.numpy())
        outcome = worlds.step(torch.stack([-action, action, action.flip(0)]))
        assert torch.equal(worlds.observe()[1], torch.from_numpy(obs)), f"step {t}"
        assert outcome.reward[1].item() == pytest.approx(reward, abs=1e-12)
        assert outcome.terminated[1].item() == terminated
        falls += terminated
    env.close()
    assert 0 < falls < 100


@pytest.mark.parametrize("name", WALKERS)
def test_v5_has_gymnasiums_time_limit(name: str) -> None:
    assert find_preset(name, "v5").horizon == gymnasium.spec("Walker2d-v5").max_episode_steps


# --- every preset: a plain loop of mj_step over a model of its own is the oracle


def plain_model(name: str, preset: str, parameter: Array) -> mujoco.MjModel:
    """Gymnasium's file, edited number by number as the task says."""
    body = "hopper" if name == HOPPER else "walker2d_v5" if preset == "v5" else "walker2d"
    model = mujoco.MjModel.from_xml_path(str(ASSETS / f"{body}.xml"))
    if name in BOTH:
        if preset == "promp":
            model.opt.timestep = 0.004
        scale_model(model, parameter)
    return model


FRAME_SKIP = {"promp": {"walker2d_dir": 8, "walker2d_vel": 8}}


def plain_reward(name: str, preset: str, parameter: Array, velocity: float, action: Array, fallen: bool) -> float:
    progress, bonus = velocity, 1.0
    if name == "walker2d_dir":
        progress = float(parameter) * velocity
    elif name == "walker2d_vel":
        progress = -abs(velocity - float(parameter))
        bonus = 15.0 if preset == "promp" else 3.0
    if preset == "v5" and fallen:
        bonus = 0.0
    return progress + bonus - 1e-3 * float(np.square(action).sum())


def plain_fall(name: str, qpos: Array, qvel: Array) -> bool:
    if name == HOPPER:
        state = np.concatenate([qpos, qvel])[2:]
        return not (np.isfinite(state).all() and (abs(state) < 100).all() and qpos[1] > 0.7 and abs(qpos[2]) < 0.2)
    return not (0.8 < qpos[1] < 2.0 and -1.0 < qpos[2] < 1.0)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_world_is_a_plain_loop_over_a_model_of_its_own(name: str, preset: str) -> None:
    """Observations and falls to the last bit, rewards to 1e-12, in 5 tasks side by side; actions are clipped."""
    task = find_preset(name, preset)
    parameters, worlds, loops = beside_plain_loops(task, lambda p: plain_model(name, preset, p))
    frame_skip, falls = FRAME_SKIP.get(preset, {}).get(name, 4), []
    for t, actions in enumerate(random_actions(task, 60, 5)):
        before = [loop.data.qpos[0] for loop in loops]
        outcome, obs = worlds.step(actions), worlds.observe()
        for i, (loop, action) in enumerate(zip(loops, actions.numpy(), strict=True)):
            loop.step(action, frame_skip)
            qpos, qvel = loop.data.qpos, loop.data.qvel
            expected = np.concatenate([qpos[1:], np.clip(qvel, -10, 10)])
            assert np.array_equal(obs[i].numpy(), expected), f"step {t}"
            velocity, fallen = (
                (qpos[0] - before[i]) / (frame_skip * loop.model.opt.timestep),
                plain_fall(name, qpos, qvel),
            )
            reward = plain_reward(name, preset, parameters[i], velocity, action, fallen)
            assert outcome.reward[i].item() == pytest.approx(reward, abs=1e-12)
            assert outcome.terminated[i].item() == fallen
            falls.append(fallen)
    assert any(falls)
    assert not all(falls)


@pytest.mark.parametrize(
    ("height", "pitch", "falls"),
    [
        (0.81, 0.99, False),
        (1.99, -0.99, False),
        (0.79, 0.0, True),
        (2.01, 0.0, True),
        (1.2, 1.01, True),
        (1.2, -1.01, True),
    ],
)
def test_where_a_walker_has_fallen(height: float, pitch: float, falls: bool) -> None:
    """Speeds and places do not matter."""
    worlds = make_worlds(find_preset("walker2d_dir"), 1)
    put(worlds, np.array([500.0, height, pitch, *[-200.0] * 6]), np.full(9, 200.0))
    assert worlds.task.terminated(worlds.physics, torch.zeros(1)).item() == falls


@pytest.mark.parametrize(
    ("qpos", "qvel", "falls"),
    [
        ((0.0, 0.71, 0.19), 0.0, False),
        ((0.0, 0.69, 0.0), 0.0, True),
        ((0.0, 1.0, 0.21), 0.0, True),
        ((0.0, 1.0, -0.21), 0.0, True),
        ((500.0, 50.0, 0.0), 99.0, False),  # neither x nor height is bounded above
        ((0.0, 1.0, 0.0), 101.0, True),
        ((0.0, 1.0, 0.0), -101.0, True),
        ((0.0, 1.0, 0.0, -101.0), 0.0, True),
    ],
)
def test_where_a_hopper_has_fallen(qpos: tuple[float, ...], qvel: float, falls: bool) -> None:
    worlds = make_worlds(find_preset(HOPPER), 1)
    put(worlds, np.array([*qpos, *[0.0] * (6 - len(qpos))]), np.array([0.0] * 5 + [qvel]))
    assert worlds.task.terminated(worlds.physics, torch.zeros(1)).item() == falls


# --- tasks


def test_directions_and_velocities() -> None:
    """10,000 draws: means within 5 standard errors of 0 and of the middle."""
    directions = sample(find_preset("walker2d_dir"), 10_000)
    assert set(directions.tolist()) == {-1.0, 1.0}
    assert abs(directions.mean()) < 5 / 100
    for preset, top in (("promp", 10.0), ("v5", 3.0)):
        velocities = sample(find_preset("walker2d_vel", preset), 10_000) / top
        assert 0 <= velocities.min() < 0.01 < 0.99 < velocities.max() < 1
        assert abs(velocities.mean() - 0.5) < 5 * np.sqrt(1 / 12) / 100


# --- resets and presets


@pytest.mark.parametrize("name", [*WALKERS, HOPPER])
def test_reset_noise_is_uniform(name: str) -> None:
    """Positions and velocities of 4,000 worlds: bounds, mean and variance of U(-0.005, 0.005), each by itself."""
    worlds = make_worlds(find_preset(name), 4000)
    start(worlds)
    qpos, qvel = map(torch.from_numpy, qpos_and_qvel(worlds))
    noise = torch.cat([qpos - torch.from_numpy(worlds.task.model().qpos0), qvel], dim=1) / 0.005
    assert 0.99 < noise.abs().max() <= 1 + 1e-9
    assert noise.mean(0).abs().max() < 6 * np.sqrt(1 / 3 / 4000)
    assert (noise.var(0) - 1 / 3).abs().max() < 6 * np.sqrt((1 / 5 - 1 / 9) / 4000)
    assert torch.corrcoef(noise.T).fill_diagonal_(0).abs().max() < 6 / np.sqrt(4000)


@pytest.mark.parametrize(
    ("name", "preset", "horizon", "seconds", "substep"),
    [
        # dennisl88/rand_param_envs: 4 substeps of 0.004 s
        ("walker2d_rand_params", "promp", 200, 0.016, 0.004),
        (HOPPER, "promp", 200, 0.016, 0.004),
        # jonasrothfuss/ProMP on gym: 8 substeps of 0.002 s
        ("walker2d_dir", "promp", 200, 0.016, 0.002),
        ("walker2d_vel", "promp", 200, 0.016, 0.002),
        # Gymnasium
        ("walker2d_rand_params", "v5", 1000, 0.008, 0.002),
        ("walker2d_dir", "v5", 1000, 0.008, 0.002),
        ("walker2d_vel", "v5", 1000, 0.008, 0.002),
        (HOPPER, "v5", 1000, 0.008, 0.002),
    ],
)
def test_clocks(name: str, preset: str, horizon: int, seconds: float, substep: float) -> None:
    task = find_preset(name, preset)
    assert (task.horizon, task.spec.horizon) == (horizon, horizon)
    assert task.model().opt.timestep == substep
    assert task.frame_skip * substep == pytest.approx(seconds)


def test_projects_that_share_rand_param_envs_share_its_preset() -> None:
    assert find_preset("walker2d_rand_params", "pearl") == find_preset("walker2d_rand_params", "promp")
    assert find_preset("walker2d_rand_params", "varibad") == find_preset("walker2d_rand_params", "promp")
    assert find_preset(HOPPER, "pearl") == find_preset(HOPPER, "promp")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(HOPPER, {"scale_limit": -1.0}), (HOPPER, {"timestep": 0.0}), ("walker2d_vel", {"max_velocity": 0.0})],
)
def test_options_that_cannot_work_are_refused(name: str, wrong: dict[str, float]) -> None:
    with pytest.raises(BadField, match=next(iter(wrong))):
        replace(find_preset(name), **wrong)
