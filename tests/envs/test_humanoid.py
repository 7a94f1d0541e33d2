"""The humanoid's tasks against gymnasium's own environment and against a plain loop of MuJoCo's calls."""

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import Array, Plain, check_that_only_numbers_leave, make_worlds, put, random_actions, start
from test_half_cheetah import assert_distributed

from metarl.envs.locomotion.humanoid import XML
from metarl.envs.registry import find_preset

NAME = "humanoid_dir"
GOALS = torch.tensor([[1.0, 0.0], [0.6, -0.8]])


def test_only_numbers_leave_under_thousands_of_wild_actions() -> None:
    """1,600 control steps of 5 substeps, with all forces observed, not ended by a fall."""
    task = replace(find_preset(NAME, "promp"), healthy=None)
    check_that_only_numbers_leave(task, num_steps=100, num_tasks=8)


# --- v5: gymnasium's Humanoid-v5 is the oracle


def center_of_mass(model: mujoco.MjModel, data: mujoco.MjData) -> Array:
    """x and y of all bodies' mean, weighted by mass; Gymnasium's is of the substep before."""
    return model.body_mass @ data.xipos[:, :2] / model.body_mass.sum()


@pytest.mark.parametrize("preset", ["v5", "v5_2d"])
def test_v5_is_gymnasiums_environment_but_for_the_direction(preset: str) -> None:
    """For 100 steps, in part fallen: observation to the bit, bonus, control cost and end."""
    parts = ("cinert", "cvel", "qfrc_actuator", "cfrc_ext")
    env = gymnasium.make(
        "Humanoid-v5", contact_cost_weight=0.0, **{f"include_{part}_in_observation": False for part in parts}
    ).unwrapped
    first, _ = env.reset(seed=0)
    task, shadow = find_preset(NAME, preset), Plain(env.model, env.data.qpos, env.data.qvel)
    worlds = make_worlds(task, 2)
    worlds.set_tasks(GOALS)
    put(worlds, env.data.qpos, env.data.qvel)
    assert torch.equal(worlds.observe()[1], torch.from_numpy(first))
    ends = set()
    for t, action in enumerate(random_actions(task, 100)):
        before = center_of_mass(env.model, shadow.data)
        obs, _, terminated, _, info = env.step(0.4 * action.numpy())
        shadow.step(0.4 * action.numpy(), 5)
        velocity = (center_of_mass(env.model, shadow.data) - before) / env.dt
        outcome = worlds.step(action.expand(2, 17))
        assert torch.equal(worlds.observe(), torch.from_numpy(obs).expand(2, -1)), f"step {t}"
        expected = 1.25 * GOALS.double().numpy() @ velocity + info["reward_survive"] + info["reward_ctrl"]
        np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=1e-10)
        assert outcome.terminated.tolist() == [terminated, terminated]
        ends.add(terminated)
    env.close()
    assert ends == {True, False}
    assert task.horizon == gymnasium.spec("Humanoid-v5").max_episode_steps


# --- the presets of 376 numbers: a plain loop of mj_step and mj_forward is the oracle


@pytest.mark.parametrize("preset", ["promp", "promp_2d", "pearl", "varibad"])
def test_a_preset_is_a_plain_loop_of_mujocos_calls(preset: str) -> None:
    """Observations to the last bit, rewards and ends, from a hard landing whose contact cost reaches its limit."""
    task, model = find_preset(NAME, preset), mujoco.MjModel.from_xml_path(str(XML))
    rng = np.random.default_rng(0)
    qpos, qvel = model.qpos0 + 0.05 * rng.normal(size=24), rng.normal(size=23)
    qvel[2] = -7.0  # m/s
    oracle, worlds = Plain(model, qpos, qvel), make_worlds(task, 2)
    data, silent = oracle.data, preset in ("pearl", "varibad")
    worlds.set_tasks(GOALS)
    put(worlds, qpos, qvel)
    costs, ends = [], set()

    def contacts() -> Array:
        mujoco.mj_rnePostConstraint(model, data)
        return np.zeros(84) if silent else data.cfrc_ext.ravel()

    def observation() -> torch.Tensor:
        parts = [data.qpos[2:], data.qvel, data.cinert.ravel(), data.cvel.ravel(), data.qfrc_actuator, contacts()]
        return torch.from_numpy(np.concatenate(parts)).expand(2, -1)

    assert torch.equal(worlds.observe(), observation())
    for t, action in enumerate(random_actions(task, 60)):
        before = center_of_mass(model, data)
        oracle.step(0.4 * action.numpy(), 5)
        moved = center_of_mass(model, data) - before
        outcome = worlds.step(action.expand(2, 17))
        assert torch.equal(worlds.observe(), observation()), f"step {t}"
        costs.append(0.5e-6 * np.square(contacts()).sum())
        speed_reward = 0.25 * GOALS.double().numpy() @ moved / model.opt.timestep
        expected = speed_reward - 0.1 * np.square(data.ctrl).sum() - min(costs[-1], 10) + 5
        np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=1e-10)
        ended = bool(data.qpos[2] < 1.0 or data.qpos[2] > 2.0)
        assert outcome.terminated.tolist() == [ended, ended]
        ends.add(ended)
    assert ends == {True, False}
    assert max(costs) == 0 if silent else 0 < np.median(costs) < 10 < max(costs)


def test_contacts_cost_the_same_where_they_are_not_observed() -> None:
    """From the first step on, in which the feet hit the floor."""
    observed, qvel = find_preset(NAME, "promp"), np.zeros(23)
    qvel[2] = -7.0  # m/s
    rewards = []
    for task in (observed, replace(observed, include_dynamics=False), replace(observed, contact_cost=0.0)):
        worlds = make_worlds(task, 2)
        worlds.set_tasks(GOALS)
        put(worlds, task.model().qpos0, qvel)
        rewards.append([worlds.step(action.expand(2, 17)).reward[0].item() for action in random_actions(task, 5)])
    assert rewards[0] == rewards[1]
    assert rewards[0][0] < rewards[2][0]


@pytest.mark.parametrize(("height", "ended"), [(0.99, True), (1.01, False), (1.99, False), (2.01, True)])
@pytest.mark.parametrize("preset", ["promp", "v5"])
def test_heights_that_end_an_episode(height: float, ended: bool, preset: str) -> None:
    """The bonus of 5 is paid in that step by the originals, not by Gymnasium's v5."""
    task = find_preset(NAME, preset)
    worlds = make_worlds(task, 1)
    put(worlds, np.array([0, 0, height, 1, *[0] * 20]), np.zeros(23))
    assert task.terminated(worlds.physics, GOALS[:1]).tolist() == [ended]
    assert task.bonus(worlds.physics).tolist() == [0.0 if ended and preset == "v5" else 5.0]


def test_pgs_and_newtons_solver_agree() -> None:
    """Warp solves by Newton's method; after 60 random control steps, of which most touch the floor, within 1e-4."""
    ends = []
    for solver in (mujoco.mjtSolver.mjSOL_PGS, mujoco.mjtSolver.mjSOL_NEWTON):
        model = mujoco.MjModel.from_xml_path(str(XML))
        model.opt.solver = solver
        plain = Plain(model, model.qpos0, 0.01 * np.random.default_rng(0).normal(size=23))
        for action in random_actions(find_preset(NAME), 60).numpy():
            plain.step(0.4 * action, 5)
        ends.append(plain.data.qpos.copy())
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-4)
    assert not np.array_equal(ends[0], ends[1])
    assert find_preset(NAME).model().opt.solver == mujoco.mjtSolver.mjSOL_PGS


# --- tasks, resets, presets


def test_task_draws() -> None:
    """Of 10,000; :func:`assert_distributed` allows 6 standard errors."""
    for preset in ("promp", "v5"):
        both = find_preset(NAME, preset).sample(10_000, torch.Generator().manual_seed(0))
        assert {tuple(d) for d in both.tolist()} == {(-1.0, 0.0), (1.0, 0.0)}
        assert abs(both[:, 0].mean()) < 6 / 100
    for preset in ("promp_2d", "pearl", "varibad", "v5_2d"):
        all_ways = find_preset(NAME, preset).sample(10_000, torch.Generator().manual_seed(0))
        torch.testing.assert_close(all_ways.norm(dim=1), torch.ones(10_000))
        assert_distributed(torch.atan2(all_ways[:, 1], all_ways[:, 0])[:, None], "U", np.pi)


@pytest.mark.parametrize("preset", ["promp", "v5"])
def test_initial_states_are_uniform(preset: str) -> None:
    """24 positions and 23 velocities of 2,000 worlds: U(-0.01, 0.01) about standing still, 1.4 m high."""
    worlds = make_worlds(find_preset(NAME, preset), 2000)
    start(worlds)
    standing = torch.tensor([0, 0, 1.4, 1, *[0] * 20], dtype=torch.float64)
    assert_distributed(worlds.physics.bind("qpos") - standing, "U", 0.01)
    assert_distributed(worlds.physics.bind("qvel"), "U", 0.01)


@pytest.mark.parametrize(
    ("preset", "horizon", "obs_dim"),
    [
        *((preset, 200, 376) for preset in ("promp", "promp_2d", "pearl", "varibad")),
        ("v5", 1000, 45),
        ("v5_2d", 1000, 45),
    ],
)
def test_presets(preset: str, horizon: int, obs_dim: int) -> None:
    task = find_preset(NAME, preset)
    assert (task.spec.horizon, task.spec.obs_dim, task.spec.terminates) == (horizon, obs_dim, True)
    assert (task.spec.action_dim, task.spec.has_success) == (17, False)
    assert task.frame_skip * task.model().opt.timestep == pytest.approx(0.015)
    assert task.make(1, 2, seed=0, num_threads=1).reset().shape == (1, 2, obs_dim)
