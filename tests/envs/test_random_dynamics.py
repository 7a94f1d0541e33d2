"""Random dynamics and damage: what tasks draw and where it goes; the cheetah's and the ant's against plain loops."""

from dataclasses import replace
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import (
    Array,
    beside_plain_loops,
    bits_of,
    make_worlds,
    random_actions,
    sample,
    scale_model,
    start,
)
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.locomotion.half_cheetah import XML as CHEETAH
from metarl.envs.registry import find_preset

pytestmark = pytest.mark.usefixtures("one_thread")

PRESETS = [
    ("half_cheetah_rand_params", "v5"),
    ("half_cheetah_damaged", "v5"),
    ("half_cheetah_damaged", "nagabandi2019"),
    ("ant_rand_params", "v5"),
    ("ant_damaged", "v5"),
    ("ant_damaged", "nagabandi2019"),
]


# --- a plain loop of mj_step over a model of its own is the oracle


def plain_model(name: str, preset: str, parameter: Array) -> mujoco.MjModel:
    """Gymnasium's file, edited number by number as the task says."""
    model = mujoco.MjModel.from_xml_path(str(CHEETAH if "cheetah" in name else CHEETAH.with_name("ant.xml")))
    if "ant" in name and preset == "nagabandi2019":
        model.opt.timestep = 0.02
        model.geom_solimp[:, :3] = 0.8, 0.8, 0.01
    if "damaged" in name:
        for actuator, strength in enumerate(parameter.astype(float)):
            model.actuator_gear[actuator] *= strength
    else:
        scale_model(model, parameter)
    return model


def plain_observation(name: str, preset: str, data: mujoco.MjData) -> Array:
    rllab = preset == "nagabandi2019"
    if "cheetah" in name:
        return np.concatenate([data.qpos[1:], data.qvel, data.subtree_com[1] if rllab else []])
    frame = [*data.xmat[1], *data.subtree_com[1]] if rllab else []
    return np.concatenate([data.qpos if rllab else data.qpos[2:], data.qvel, frame])


def plain_reward(name: str, preset: str, parameter: Array, v: float, action: Array, height: float) -> float:
    command, torque = float(np.square(action).sum()), float(np.square(action * parameter[: len(action)]).sum())
    if "cheetah" in name:
        return v - (0.05 * torque if preset == "nagabandi2019" else 0.1 * command)
    return v + (0.05 if preset == "nagabandi2019" else (0.2 <= height <= 1.0) - 0.5 * command)


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_world_is_a_plain_loop_over_a_model_of_its_own(name: str, preset: str) -> None:
    """Observations and ends to the last bit, rewards to 1e-12, in 5 tasks side by side, for 60 steps."""
    task = find_preset(name, preset)
    parameters, worlds, loops = beside_plain_loops(task, lambda p: plain_model(name, preset, p))
    rllab = preset == "nagabandi2019"
    substeps = 1 if rllab else 5
    for t, actions in enumerate(random_actions(task, 60, 5)):
        before = [loop.data.qpos[0] for loop in loops]
        outcome, obs = worlds.step(actions), worlds.observe()
        for i, (loop, action) in enumerate(zip(loops, actions.numpy(), strict=True)):
            loop.step(action, substeps)
            assert np.array_equal(obs[i].numpy(), plain_observation(name, preset, loop.data)), f"step {t}"
            mujoco.mj_subtreeVel(loop.model, loop.data)
            displaced = (loop.data.qpos[0] - before[i]) / (substeps * loop.model.opt.timestep)
            velocity = loop.data.subtree_linvel[1, 0] if rllab else displaced
            height = loop.data.qpos[2]
            reward = plain_reward(name, preset, parameters[i], velocity, action, height)
            assert outcome.reward[i].item() == pytest.approx(reward, abs=1e-12)
            ends = task.spec.terminates and not 0.2 <= height <= 1.0
            assert outcome.terminated[i].item() == ends


@pytest.mark.parametrize("name", ["half_cheetah_rand_params", "half_cheetah_damaged", "ant_rand_params", "ant_damaged"])
def test_a_sound_body_is_that_of_the_forward_task(name: str) -> None:
    """Multipliers of one change no bit of observations and rewards, though the constants are computed again."""
    task, forward = find_preset(name, "v5"), find_preset(name.split("_rand")[0].split("_dam")[0] + "_dir", "v5")
    ours, theirs = make_worlds(task, 2), make_worlds(forward, 2)
    ours.set_tasks(torch.ones_like(sample(task, 2)))
    theirs.set_tasks(torch.ones(2))
    start(ours), start(theirs)
    actions = random_actions(task, 40, 2)
    for a, b in zip(bits_of(ours, actions), bits_of(theirs, actions), strict=True):
        assert torch.equal(a, b)


# --- multipliers


@pytest.mark.parametrize(
    ("name", "count", "bodies", "dofs"),
    [
        ("walker2d_rand_params", 65, 8, 9),
        ("hopper_rand_params", 41, 5, 6),
        ("half_cheetah_rand_params", 68, 8, 9),
        ("ant_rand_params", 112, 14, 14),
    ],
)
def test_multipliers_are_log_uniform(name: str, count: int, bodies: int, dofs: int) -> None:
    """u = log m / log base of 2,000 tasks: |u| <= 3, mean and variance 0 and 3 within 6 standard errors."""
    multipliers = sample(find_preset(name), 2000).double()
    assert multipliers.shape == (2000, count)
    damping = torch.arange(count).clamp(4 * bodies, 4 * bodies + dofs - 1) == torch.arange(count)
    u = multipliers.log() / torch.where(damping, 1.3, 1.5).log()
    assert 2.99 < u.abs().max() <= 3 + 1e-5
    assert u.mean(0).abs().max() < 6 * np.sqrt(3 / 2000)
    assert torch.corrcoef(u.T).fill_diagonal_(0).abs().max() < 6 / np.sqrt(2000)
    assert (u.var(0) - 3).abs().max() < 6 * np.sqrt((81 / 5 - 9) / 2000)


def test_every_multiplier_reaches_its_own_number() -> None:
    """A task with one multiplier doubled changes one number of the model."""
    task = find_preset("hopper_rand_params")
    worlds = make_worlds(task, 41)
    worlds.set_tasks(torch.ones(41, 41) + torch.eye(41))
    fields = ("body_mass", "body_inertia", "dof_damping", "geom_friction")
    numbers: Tensor = torch.cat([worlds.physics.expand(f).flatten(1) for f in fields], dim=1)
    own = torch.cat([torch.from_numpy(getattr(task.model(), f)).flatten() for f in fields])
    assert torch.equal(numbers, own * (torch.ones(41, 41) + torch.eye(41)).double())


def test_an_environment_without_tasks_has_the_bodys_own_dynamics() -> None:
    """Also after its state was saved and loaded: no task is no multiplier of zero."""
    task = find_preset("hopper_rand_params")
    env, own = (task.make(2, 1, seed=0, num_threads=1) for _ in range(2))
    own.set_tasks(torch.ones(2, 41))
    own.reset(), env.reset()
    env.load_state_dict(env.state_dict())
    action = random_actions(task, 2, 1)
    assert torch.equal(env.step(action).next_obs, own.step(action).next_obs)


# --- damage


CHEETAH_JOINTS = [{0}, {1}, {2}, {3}, {4}, {5}]
ANT_LEGS = [{2, 3}, {4, 5}, {6, 7}, {0, 1}]  # actuators of the legs 1 to 4; those of the fourth come first


@pytest.mark.parametrize(
    ("name", "preset", "limbs", "strength"),
    [
        ("half_cheetah_damaged", "v5", CHEETAH_JOINTS, 0.5),
        ("half_cheetah_damaged", "nagabandi2019", CHEETAH_JOINTS[1:], 0.0),
        ("half_cheetah_damaged", "nagabandi2019_test", CHEETAH_JOINTS[:1], 0.0),
        ("ant_damaged", "v5", ANT_LEGS, 0.5),
        ("ant_damaged", "nagabandi2019", ANT_LEGS[:3], 0.0),
        ("ant_damaged", "nagabandi2019_test", ANT_LEGS[3:], 0.0),
    ],
)
def test_one_limb_is_damaged(name: str, preset: str, limbs: list[set[int]], strength: float) -> None:
    """3,000 tasks: exactly one limb, all of them equally often (6 standard errors), uniform in [0, strength]."""
    tasks = sample(find_preset(name, preset), 3000)
    weak = [frozenset(np.flatnonzero(row < 1).tolist()) for row in tasks.numpy()]
    share = 1 / len(limbs)
    assert set(weak) == set(map(frozenset, limbs))
    for limb in limbs:
        assert abs(weak.count(frozenset(limb)) / 3000 - share) <= 6 * np.sqrt(share * (1 - share) / 3000)
    kept = tasks.min(1).values
    assert torch.equal(tasks.where(tasks < 1, -1).max(1).values, kept)  # the same share in the whole limb
    assert 0 <= kept.min() <= 0.01
    assert 0.99 * strength <= kept.max() <= strength
    assert abs(kept.mean() - strength / 2) <= 6 * strength * np.sqrt(1 / 12 / 3000)


def test_the_legs_are_those_of_the_joints() -> None:
    model = find_preset("ant_damaged").model()
    names = [mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, j) for j in model.actuator_trnid[:, 0]]
    legs = {i: {a for a, name in enumerate(names) if name.endswith(str(i + 1))} for i in range(4)}
    assert [legs[i] for i in range(4)] == ANT_LEGS


def test_a_dead_joint_does_nothing_whatever_the_command() -> None:
    """Commands to it change neither dynamics nor, in nagabandi2019, reward; in v5 they cost."""
    for preset in ("nagabandi2019", "v5"):
        task = find_preset("half_cheetah_damaged", preset)
        worlds = make_worlds(task, 2)
        worlds.set_tasks(torch.tensor([1, 1, 0, 1, 1, 1.0]).expand(2, 6))
        start(worlds)
        for field in ("qpos", "qvel"):
            worlds.physics.bind(field)[1] = worlds.physics.bind(field)[0]
        actions = random_actions(task, 10, 1).repeat(1, 2, 1)
        actions[:, 1, 2] = 0
        obs, reward = bits_of(worlds, actions)
        assert torch.equal(obs[:, 0], obs[:, 1])
        cost = 0.1 * actions[:, 0, 2] ** 2 if preset == "v5" else torch.zeros(10, dtype=torch.float64)
        torch.testing.assert_close(reward[:, 1] - reward[:, 0], cost, rtol=0, atol=1e-12)


def test_the_damaged_limb_is_red() -> None:
    model = find_preset("ant_damaged").model_of(torch.tensor([1, 1, 1, 1, 0.3, 0.3, 1, 1]))
    red = np.flatnonzero((model.geom_rgba == (1, 0, 0, 1)).all(1))
    assert {mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_GEOM, g) for g in red} == {
        "right_leg_geom",
        "right_ankle_geom",
    }
    sound = find_preset("ant_damaged").model()
    assert not (sound.geom_rgba == (1, 0, 0, 1)).all(1).any()


# --- presets


@pytest.mark.parametrize(
    ("name", "preset", "horizon", "seconds", "obs_dim", "action_dim", "terminates"),
    [
        ("half_cheetah_rand_params", "v5", 1000, 0.05, 17, 6, False),
        ("half_cheetah_damaged", "v5", 1000, 0.05, 17, 6, False),
        ("ant_rand_params", "v5", 1000, 0.05, 27, 8, True),
        ("ant_damaged", "v5", 1000, 0.05, 27, 8, True),
        # iclavera/learning_to_adapt: the models of cbfinn/maml_rl, one substep a control step
        ("half_cheetah_damaged", "nagabandi2019", 1000, 0.01, 20, 6, False),
        ("ant_damaged", "nagabandi2019", 1000, 0.02, 41, 8, False),
    ],
)
def test_presets(
    name: str, preset: str, horizon: int, seconds: float, obs_dim: int, action_dim: int, terminates: bool
) -> None:
    task, test = find_preset(name, preset), find_preset(name, preset).presets.get(f"{preset}_test")
    spec = task.spec
    assert (spec.horizon, spec.obs_dim, spec.action_dim) == (horizon, obs_dim, action_dim)
    assert (spec.terminates, spec.has_success) == (terminates, False)
    assert task.frame_skip * task.model().opt.timestep == pytest.approx(seconds)
    if preset == "v5":
        gym_id = "HalfCheetah-v5" if "cheetah" in name else "Ant-v5"
        assert gymnasium.spec(gym_id).max_episode_steps == horizon
    assert test is None or replace(test, limbs=task.limbs) == task


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("half_cheetah_damaged", {"limbs": (6,)}),
        ("ant_damaged", {"limbs": (4,)}),
        ("ant_damaged", {"max_strength": 1.5}),
        ("ant_rand_params", {"scale_limit": -0.1}),
    ],
)
def test_options_that_cannot_work_are_refused(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadField, match=next(iter(wrong))):
        replace(find_preset(name), **wrong)
