"""The pendulum and the cart-pole of unknown mass against gymnasium's own environments."""

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import Plain, make_worlds, put, qpos_and_qvel, random_actions, sample, start
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.envs.small import cartpole_mass, pendulum_mass

pytestmark = pytest.mark.usefixtures("one_thread")

TASKS = ("pendulum_mass", "cartpole_mass")


# --- gymnasium's own environments are the oracle


def test_the_pendulum_is_gymnasiums_of_the_same_mass() -> None:
    """5 masses, 100 steps of random torques: states and rewards to 1e-9, each until it is at Gym's limit of speed."""
    task = find_preset("pendulum_mass")
    masses, worlds = torch.tensor([0.5, 0.8, 1.0, 1.7, 2.0]), make_worlds(task, 5)
    worlds.set_tasks(masses)
    start(worlds)
    worlds.physics.bind("qpos")[:] += 40  # beyond one turn: the angle in the reward is wrapped
    envs = [gymnasium.make("Pendulum-v1").unwrapped for _ in range(5)]
    for env, mass, qpos, qvel in zip(envs, masses.tolist(), *qpos_and_qvel(worlds), strict=True):
        env.reset(seed=0)
        env.m, env.state = mass, np.array([qpos[0], qvel[0]])
    compared = [0] * 5
    for t, actions in enumerate(random_actions(task, 100, 5)):
        outcome, obs = worlds.step(actions), worlds.observe().numpy()
        for i, env in enumerate(envs):
            _, reward, *_ = env.step(2 * actions[i].numpy())
            theta, speed = env.state
            if compared[i] < t or abs(speed) == 8:
                continue
            np.testing.assert_allclose(obs[i], [np.cos(theta), np.sin(theta), speed], rtol=0, atol=1e-9)
            assert outcome.reward[i].item() == pytest.approx(reward, abs=1e-9)
            compared[i] += 1
    assert min(compared) > 5
    assert sum(compared) > 250


def test_the_cartpole_is_gymnasiums_of_the_same_masses() -> None:
    """5 tasks, 100 pushes, most of them after the fall: states to 1e-9, ends and rewards exactly."""
    task = find_preset("cartpole_mass")
    masses, worlds = sample(task, 5), make_worlds(task, 5)
    worlds.set_tasks(masses)
    start(worlds)
    envs = [gymnasium.make("CartPole-v1").unwrapped for _ in range(5)]
    for env, (cart, pole), qpos, qvel in zip(envs, masses.tolist(), *qpos_and_qvel(worlds), strict=True):
        env.reset(seed=0)
        env.masscart, env.masspole = cart, pole
        env.total_mass, env.polemass_length = cart + pole, pole * env.length
        env.kinematics_integrator = "semi-implicit euler"
        env.state = (qpos[0], qvel[0], qpos[1], qvel[1])
    pushes = torch.randint(2, (100, 5), generator=torch.Generator().manual_seed(0))
    ends = []
    for push in pushes:
        outcome, obs = worlds.step(torch.nn.functional.one_hot(push, 2).double()), worlds.observe().numpy()
        for i, env in enumerate(envs):
            env.steps_beyond_terminated = None
            _, reward, terminated, *_ = env.step(int(push[i]))
            np.testing.assert_allclose(obs[i], env.state, rtol=1e-9, atol=1e-9)
            assert outcome.terminated[i].item() == terminated
            assert outcome.reward[i].item() == reward == 1.0
            ends.append(terminated)
    assert 0 < sum(ends) < 500


@pytest.mark.parametrize(
    ("qpos", "ends"),
    [((2.39, 0.0), 0), ((2.41, 0.0), 1), ((-2.41, 0.0), 1), ((0.0, 0.209), 0), ((0.0, 0.21), 1), ((0.0, -0.21), 1)],
)
def test_where_a_cartpole_ends(qpos: tuple[float, float], ends: int) -> None:
    worlds = make_worlds(find_preset("cartpole_mass"), 1)
    put(worlds, np.array(qpos), np.zeros(2))
    assert worlds.task.terminated(worlds.physics, torch.ones(1, 2)).item() == bool(ends)


@pytest.mark.parametrize("name", TASKS)
def test_a_world_is_a_plain_loop_over_a_model_of_its_own(name: str) -> None:
    """To the last bit, over models whose masses and inertias were edited one by one."""
    task = find_preset(name)
    masses, worlds = sample(task, 4, seed=3), make_worlds(task, 4, num_threads=2)
    worlds.set_tasks(sample(task, 4, seed=4))  # forgotten with the next line
    worlds.set_tasks(masses)
    start(worlds)
    loops = []
    for mass, qpos, qvel in zip(masses, *qpos_and_qvel(worlds), strict=True):
        xml = pendulum_mass.XML if name == "pendulum_mass" else cartpole_mass.XML
        model = mujoco.MjModel.from_xml_string(xml)
        own = [1.0] if name == "pendulum_mass" else [1.0, 0.1]
        multipliers = mass.reshape(-1).double().numpy() / own
        for body, multiplier in enumerate(multipliers, start=1):
            model.body_mass[body] *= multiplier
            model.body_inertia[body] *= multiplier
        mujoco.mj_setConst(model, mujoco.MjData(model))
        loops.append(Plain(model, qpos, qvel))
    for actions in random_actions(task, 50, 4):
        worlds.step(actions)
        qpos, qvel = qpos_and_qvel(worlds)
        for i, loop in enumerate(loops):
            loop.step(actions[i].numpy() * (2 if name == "pendulum_mass" else 1), 1)
            assert np.array_equal(loop.data.qpos, qpos[i])
            assert np.array_equal(loop.data.qvel, qvel[i])


# --- tasks, resets, presets


def assert_uniform(samples: Tensor, low: float, high: float) -> None:
    """Bounds, mean and variance of each column within 6 standard errors."""
    u = (samples.double() - low) / (high - low)
    n = len(u)
    assert -1e-6 <= u.min() < 0.01 < 0.99 < u.max() <= 1 + 1e-6
    assert (u.mean(0) - 1 / 2).abs().max() < 6 * np.sqrt(1 / 12 / n)
    assert (u.var(0) - 1 / 12).abs().max() < 6 * np.sqrt((1 / 80 - 1 / 144) / n)


def test_masses_are_uniform() -> None:
    """10,000 draws; RLlib: pendulum [0.5, 2] kg, cart [0.5, 2] kg, pole [0.05, 0.2] kg."""
    assert_uniform(sample(find_preset("pendulum_mass"), 10_000), 0.5, 2.0)
    masses = sample(find_preset("cartpole_mass"), 10_000)
    assert_uniform(masses[:, 0], 0.5, 2.0)
    assert_uniform(masses[:, 1], 0.05, 0.2)
    assert abs(torch.corrcoef(masses.T)[0, 1]) < 6 / 100


def test_reset_noise_is_gymnasiums() -> None:
    """4,000 worlds; pendulum U(-pi, pi) and U(-1, 1), cart-pole U(-0.05, 0.05) on all four numbers."""
    for name, bounds in (("pendulum_mass", (np.pi, 1.0)), ("cartpole_mass", (0.05, 0.05))):
        worlds = make_worlds(find_preset(name), 4000)
        start(worlds)
        for x, bound in zip(qpos_and_qvel(worlds), bounds, strict=True):
            assert_uniform(torch.from_numpy(x), -bound, bound)


@pytest.mark.parametrize(
    ("name", "obs_dim", "action_dim", "timestep", "terminates", "discrete"),
    [("pendulum_mass", 3, 1, 0.05, False, False), ("cartpole_mass", 4, 2, 0.02, True, True)],
)
def test_presets(name: str, obs_dim: int, action_dim: int, timestep: float, terminates: bool, discrete: bool) -> None:
    task = find_preset(name, "rllib")
    spec = task.spec
    assert (spec.horizon, spec.obs_dim, spec.action_dim) == (200, obs_dim, action_dim)
    assert (spec.terminates, spec.has_success, spec.discrete) == (terminates, False, discrete)
    assert (task.frame_skip, task.model().opt.timestep) == (1, timestep)


def test_masses_that_cannot_be_are_refused() -> None:
    for wrong in ({"min_mass": 0.0}, {"min_mass": 3.0}, {"max_mass": 0.1}):
        with pytest.raises(BadField, match="min_mass"):
            replace(find_preset("pendulum_mass"), **wrong)
