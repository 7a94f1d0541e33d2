"""The half-cheetah against gymnasium's own environment and against a plain loop of MuJoCo's calls."""

import functools
from typing import NamedTuple

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import (
    Array,
    bits_of,
    check_a_world_has_the_same_bits_alone_and_among_others,
    make_worlds,
    put,
    random_actions,
    start,
)
from torch import Tensor

from metarl.envs.locomotion.half_cheetah import XML
from metarl.envs.registry import find_preset
from metarl.envs.worlds import BatchedTaskEnv

DIRECTION, VELOCITY = "half_cheetah_dir", "half_cheetah_vel"
TASKS = (DIRECTION, VELOCITY)


# --- v5: gymnasium's HalfCheetah-v5 is the oracle


class Trace(NamedTuple):
    """What a reference implementation did; ``obs`` has one row more than the rest, the initial one."""

    qpos: Array
    qvel: Array
    obs: Array
    velocity: Array
    cost: Array


@functools.cache
def gymnasium_trace(num_steps: int) -> Trace:
    env = gymnasium.make("HalfCheetah-v5").unwrapped
    first, _ = env.reset(seed=0)
    qpos, qvel = env.data.qpos.copy(), env.data.qvel.copy()
    steps = [env.step(action) for action in random_actions(find_preset(DIRECTION, "v5"), num_steps).numpy()]
    env.close()
    velocity = [info["x_velocity"] for *_, info in steps]
    cost = [-info["reward_ctrl"] for *_, info in steps]
    obs = np.stack([first, *(step[0] for step in steps)])
    return Trace(qpos, qvel, obs, np.array(velocity), np.array(cost))


@pytest.mark.parametrize(("name", "num_steps"), [(DIRECTION, 1000), (VELOCITY, 100)])
def test_v5_repeats_gymnasiums_observations_to_the_last_bit(name: str, num_steps: int) -> None:
    """For a whole episode of 1,000 steps, while the worlds on both sides of the compared one do something else."""
    task, trace = find_preset(name, "v5"), gymnasium_trace(1000)
    actions, worlds = random_actions(task, 1000)[:num_steps], make_worlds(task, 3)
    put(worlds, trace.qpos, trace.qvel)
    assert torch.equal(worlds.observe()[1], torch.from_numpy(trace.obs[0]))
    for t, action in enumerate(actions):
        worlds.step(torch.stack([-action, action, action.flip(0)]))
        assert torch.equal(worlds.observe()[1], torch.from_numpy(trace.obs[t + 1])), f"step {t}"
    assert not torch.equal(worlds.observe()[0], worlds.observe()[1])


@pytest.mark.parametrize("name", TASKS)
def test_v5_rewards_follow_from_gymnasiums_velocity_and_control_cost(name: str) -> None:
    task, trace = find_preset(name, "v5"), gymnasium_trace(1000)
    num_steps = 300
    goal = torch.tensor([-1.0, 1.0] if name == DIRECTION else [0.5, 2.25])
    actions, worlds = random_actions(task, 1000)[:num_steps], make_worlds(task, 2)
    worlds.set_tasks(goal)
    put(worlds, trace.qpos, trace.qvel)
    rewards = torch.stack([worlds.step(action.expand(2, 6)).reward for action in actions])

    velocity, cost = trace.velocity[:num_steps, None], trace.cost[:num_steps, None]
    progress = goal.numpy() * velocity if name == DIRECTION else -np.abs(velocity - goal.numpy())
    np.testing.assert_allclose(rewards.numpy(), progress - cost, rtol=0, atol=1e-12)


def test_v5_has_gymnasiums_time_limit() -> None:
    assert find_preset(DIRECTION, "v5").horizon == gymnasium.spec("HalfCheetah-v5").max_episode_steps


# --- maml2017: a plain loop of mj_step and mj_forward is the oracle


def center_of_mass_velocity(model: mujoco.MjModel, data: mujoco.MjData) -> float:
    """x of total momentum over total mass. MuJoCo's object "body" is the frame in its center of mass."""
    momentum, spatial = 0.0, np.zeros(6)
    for body in range(1, model.nbody):
        mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_BODY, body, spatial, 0)
        momentum += model.body_mass[body] * spatial[3]  # [rotation, translation], axes of the world
    return momentum / model.body_mass.sum()


def plain_trace(actions: Array, qpos: Array, qvel: Array) -> Trace:
    """One substep of 0.01 s a control step, on the unchanged file."""
    model = mujoco.MjModel.from_xml_path(str(XML))
    data = mujoco.MjData(model)
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    obs, velocity, cost = [rllab_observation(data)], [], []
    for action in np.clip(actions, -1, 1):
        data.ctrl[:] = action
        mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        obs.append(rllab_observation(data))
        velocity.append(center_of_mass_velocity(model, data))
        cost.append(0.05 * np.square(action).sum())
    return Trace(qpos, qvel, np.stack(obs), np.array(velocity), np.array(cost))


def rllab_observation(data: mujoco.MjData) -> Array:
    """8 positions without x, 9 velocities, and the center of mass of the torso's subtree: the whole body."""
    return np.concatenate([data.qpos[1:], data.qvel, data.subtree_com[1]])


@pytest.mark.parametrize("name", TASKS)
def test_maml2017_is_one_plain_mujoco_step_a_control_step(name: str) -> None:
    """Observations to the last bit, rewards to 1e-12; actions reach 1.5 and must be clipped for both."""
    task, rng = find_preset(name, "maml2017"), np.random.default_rng(0)
    actions = random_actions(task, 200, bound=1.5)
    trace = plain_trace(actions.numpy(), 0.01 * rng.normal(size=9), 0.1 * rng.normal(size=9))
    goal = torch.tensor([-1.0, 1.0] if name == DIRECTION else [0.25, 1.5])
    worlds = make_worlds(task, 2)
    env = BatchedTaskEnv(worlds, task.spec, 2, 1, seed=0)
    env.set_tasks(goal)
    env.reset()
    put(worlds, trace.qpos, trace.qvel)
    assert torch.equal(worlds.observe(), torch.from_numpy(trace.obs[0]).expand(2, 20))
    for t, action in enumerate(actions):
        step = env.step(action.expand(2, 1, 6))
        assert torch.equal(step.next_obs[:, 0], torch.from_numpy(trace.obs[t + 1]).expand(2, 20)), f"step {t}"
        v = trace.velocity[t]
        progress = goal.double() * v if name == DIRECTION else -(v - goal.double()).abs()
        torch.testing.assert_close(step.reward[:, 0], progress - trace.cost[t], rtol=0, atol=1e-12)


def test_the_center_of_mass_moves_as_the_oracles_velocity_says() -> None:
    """The oracle's own oracle: (com(q + e qvel) - com(q - e qvel)) / 2 e, whose error is of order e^2."""
    model = mujoco.MjModel.from_xml_path(str(XML))
    data, rng, epsilon = mujoco.MjData(model), np.random.default_rng(0), 1e-5
    qpos, qvel = rng.normal(size=9), rng.normal(size=9)
    moved = []
    for sign in (1, -1):
        data.qpos[:] = qpos + sign * epsilon * qvel
        mujoco.mj_forward(model, data)
        moved.append(data.subtree_com[1, 0])
    data.qpos[:], data.qvel[:] = qpos, qvel
    mujoco.mj_forward(model, data)
    assert center_of_mass_velocity(model, data) == pytest.approx((moved[0] - moved[1]) / (2 * epsilon), abs=1e-8)


# --- side by side


@pytest.mark.parametrize("preset", ["maml2017", "v5"])
def test_a_world_has_the_same_bits_alone_and_among_others_for_100_steps(preset: str) -> None:
    check_a_world_has_the_same_bits_alone_and_among_others(find_preset(DIRECTION, preset), num_steps=100)


def test_actions_beyond_the_range_are_clipped_in_dynamics_and_cost() -> None:
    env = find_preset(DIRECTION, "v5").make(1, 2, seed=0, num_threads=1)
    env.set_tasks(torch.ones(1))
    env.reset()
    env.worlds.physics.bind("qpos")[1] = env.worlds.physics.bind("qpos")[0]
    env.worlds.physics.bind("qvel")[1] = env.worlds.physics.bind("qvel")[0]
    inside = torch.tensor([1.0, -1.0, 1.0, 0.5, -1.0, 1.0])
    beyond = torch.tensor([1.1, -7.0, 1e9, 0.5, -torch.inf, torch.inf])
    for _ in range(20):
        step = env.step(torch.stack([inside, beyond])[None])
        assert torch.equal(step.obs[0, 0], step.obs[0, 1])
        assert step.reward[0, 0] == step.reward[0, 1]


# --- tasks


@pytest.mark.parametrize("name", TASKS)
def test_every_world_of_a_task_has_its_goal(name: str) -> None:
    """From one state, rewards are equal within a task and differ between tasks."""
    env = find_preset(name).make(3, 2, seed=0, num_threads=1)
    env.set_tasks(torch.tensor([-1.0, 0.5, 1.0]))
    env.reset()
    put(env.worlds, np.zeros(9), np.ones(9))
    reward = env.step(torch.zeros(3, 2, 6)).reward
    assert torch.equal(reward[:, 0], reward[:, 1])
    assert reward.unique().numel() == 3


# numpy.random.RandomState(1).rand(10), as printed in any text on numpy's seed 1
SEED_1 = [0.417022, 0.720324, 0.000114, 0.302333, 0.146756, 0.092339, 0.186260, 0.345561, 0.396767, 0.538817]


def test_published_tasks_are_numpys_draws_of_seed_1() -> None:
    """Goals are 2 u; a direction is backward where its draw 2 u < 1."""
    velocities = find_preset(VELOCITY, "maml2017").published_tasks(10)
    torch.testing.assert_close(velocities, 2 * torch.tensor(SEED_1), rtol=0, atol=2e-6)
    directions = find_preset(DIRECTION, "maml2017").published_tasks(10)
    assert directions.tolist() == [-1, 1, -1, -1, -1, -1, -1, -1, -1, 1]


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("preset", ["promp", "v5"])
def test_other_presets_have_no_published_tasks(name: str, preset: str) -> None:
    assert find_preset(name, preset).published_tasks(10) is None


def test_task_draws() -> None:
    """10,000 draws: means within 5 standard errors of 0 (directions, sd 1) and 1.5 (U[0, 3], sd .866)."""
    generator = torch.Generator().manual_seed(0)
    directions = find_preset(DIRECTION).sample(10_000, generator)
    assert set(directions.tolist()) == {-1.0, 1.0}
    assert abs(directions.mean()) < 5 / 100
    velocities = find_preset(VELOCITY, "v5").sample(10_000, generator)
    assert 0 <= velocities.min() < 0.01 < 2.99 < velocities.max() < 3
    assert abs(velocities.mean() - 1.5) < 5 * 0.866 / 100


@pytest.mark.parametrize("num_tasks", [20, 7])
def test_balanced_directions_are_half_of_each_in_random_order(num_tasks: int) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([find_preset(DIRECTION, balanced=True).sample(num_tasks, generator) for _ in range(400)])
    assert set(drawn.sum(1).tolist()) == ({0.0} if num_tasks % 2 == 0 else {-1.0, 1.0})
    assert drawn.mean(0).abs().max() < 5 / 20  # five standard errors, at every place


def test_balanced_directions_are_tested_on_the_published_tasks() -> None:
    balanced, plain = (find_preset(DIRECTION, balanced=flag).published_tasks(40) for flag in (True, False))
    assert balanced is not None
    assert plain is not None
    assert balanced.equal(plain)


# --- resets


def raw_moment(kind: str, scale: float, order: int) -> float:
    """E x^k of U(-a, a) is a^k / (k + 1), of N(0, s^2) it is s^k 1·3·5···(k - 1); odd ones are 0."""
    if order % 2:
        return 0.0
    return scale**order * (1 / (order + 1) if kind == "U" else float(np.prod(np.arange(1, order, 2))))


def assert_distributed(samples: Tensor, kind: str, scale: float) -> None:
    """The first four moments of each column lie within 6 standard errors, sqrt((E x^2k - (E x^k)^2) / n).

    The fourth tells U(-a, a) from a normal of the same variance: a^4 / 5 against a^4 / 3, here 31 errors.
    """
    for order in range(1, 5):
        expected = raw_moment(kind, scale, order)
        error = np.sqrt((raw_moment(kind, scale, 2 * order) - expected**2) / len(samples))
        assert ((samples**order).mean(0) - expected).abs().max() < 6 * error, f"moment {order}"


@pytest.mark.parametrize(
    ("name", "preset", "kind", "scale"),
    [
        (DIRECTION, "maml2017", "N", 0.01),  # rllab: qpos + 0.01 N
        (VELOCITY, "maml2017", "N", 0.01),
        (DIRECTION, "promp", "U", 0.1),  # gym: qpos + U(-0.1, 0.1)
        (DIRECTION, "v5", "U", 0.1),
        (VELOCITY, "v5", "U", 0.1),
    ],
)
def test_reset_noise_is_that_of_the_preset(name: str, preset: str, kind: str, scale: float) -> None:
    """9 positions and 9 velocities of 4,000 worlds; the velocities are 0.1 N everywhere."""
    worlds = make_worlds(find_preset(name, preset), 4000)
    start(worlds)
    positions = worlds.physics.bind("qpos") - torch.from_numpy(worlds.task.model().qpos0)
    assert_distributed(positions, kind, scale)
    assert_distributed(worlds.physics.bind("qvel"), "N", 0.1)
    if kind == "U":
        assert positions.abs().max() <= scale


@pytest.mark.parametrize("preset", ["maml2017", "v5"])
def test_nothing_of_an_episode_survives_its_reset(preset: str) -> None:
    """A world that has run and one that has not continue alike from the same draw, warm start included."""
    task = find_preset(DIRECTION, preset)
    used, fresh, actions = make_worlds(task, 4), make_worlds(task, 4), random_actions(task, 60, 4)
    start(used, seed=1)
    bits_of(used, actions)
    start(used, seed=2)
    start(fresh, seed=2)
    for ours, theirs in zip(bits_of(used, actions), bits_of(fresh, actions), strict=True):
        assert torch.equal(ours, theirs)


# --- presets


@pytest.mark.parametrize(
    ("name", "preset", "horizon", "frame_skip", "obs_dim", "control_cost", "velocity", "max_velocity"),
    [
        # cbfinn/maml_rl on rllab: 0.01 s a step, velocity of the center of mass
        (DIRECTION, "maml2017", 200, 1, 20, 0.05, "center_of_mass", None),
        (VELOCITY, "maml2017", 200, 1, 20, 0.05, "center_of_mass", 2.0),
        # jonasrothfuss/ProMP on gym: 0.05 s a step, displacement of the torso, reward_ctrl = -0.5 * 0.1 |a|^2
        (DIRECTION, "promp", 100, 5, 17, 0.05, "finite_difference", None),
        (VELOCITY, "promp", 200, 5, 17, 0.05, "finite_difference", 3.0),
        # Gymnasium: ctrl_cost_weight = 0.1
        (DIRECTION, "v5", 1000, 5, 17, 0.1, "finite_difference", None),
        (VELOCITY, "v5", 1000, 5, 17, 0.1, "finite_difference", 3.0),
    ],
)
def test_presets(
    name: str,
    preset: str,
    horizon: int,
    frame_skip: int,
    obs_dim: int,
    control_cost: float,
    velocity: str,
    max_velocity: float | None,
) -> None:
    task = find_preset(name, preset)
    assert (task.horizon, task.frame_skip, task.control_cost) == (horizon, frame_skip, control_cost)
    assert (task.velocity, getattr(task, "max_velocity", None)) == (velocity, max_velocity)
    assert (task.spec.obs_dim, task.spec.action_dim, task.spec.horizon) == (obs_dim, 6, horizon)
    assert (task.spec.terminates, task.spec.has_success) == (False, False)
    assert task.make(1, 2, seed=0, num_threads=1).reset().shape == (1, 2, obs_dim)
    assert task.model().opt.timestep == 0.01
