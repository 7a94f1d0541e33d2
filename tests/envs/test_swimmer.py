"""The swimmer's task against gymnasium's own environment and against a plain loop of MuJoCo's calls."""

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import Array, Plain, make_worlds, put, random_actions, start
from test_half_cheetah import assert_distributed, center_of_mass_velocity

from metarl.envs.fields import BadField
from metarl.envs.locomotion.swimmer_vel import XML
from metarl.envs.registry import find_preset

NAME = "swimmer_vel"
GOALS = torch.tensor([0.1, 0.175])


@pytest.mark.parametrize("preset", ["promp", "v5"])
def test_it_is_gymnasiums_environment_but_for_the_velocity(preset: str) -> None:
    """For 300 steps: observation to the bit and control cost. ProMP's has the opposite sign of progress."""
    env = gymnasium.make("Swimmer-v5").unwrapped
    first, _ = env.reset(seed=0)
    task = find_preset(NAME, preset)
    worlds = make_worlds(task, 2)
    worlds.set_tasks(GOALS)
    put(worlds, env.data.qpos, env.data.qvel)
    assert torch.equal(worlds.observe()[1], torch.from_numpy(first))
    for t, action in enumerate(random_actions(task, 300)):
        obs, *_, info = env.step(action.numpy())
        outcome = worlds.step(action.expand(2, 2))
        assert torch.equal(worlds.observe(), torch.from_numpy(obs).expand(2, -1)), f"step {t}"
        distance = np.abs(info["x_velocity"] - GOALS.double().numpy())
        expected = (distance if preset == "promp" else -distance) + info["reward_ctrl"]
        np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=1e-12)
    env.close()
    assert find_preset(NAME, "v5").horizon == gymnasium.spec("Swimmer-v5").max_episode_steps


class Oracle(Plain):
    """The swimmer of cbfinn/maml_rl ``vendor/mujoco_models/swimmer.xml``, made of gymnasium's."""

    def __init__(self, qpos: Array, qvel: Array) -> None:
        model = mujoco.MjModel.from_xml_path(str(XML))
        model.opt.timestep, model.opt.integrator = 0.001, mujoco.mjtIntegrator.mjINT_EULER
        model.opt.iterations, model.opt.disableflags = 1000, mujoco.mjtDisableBit.mjDSBL_WARMSTART
        model.dof_armature[:] = 0
        model.actuator_gear[:, 0] = 1  # controls are torques in [-50, 50]
        model.actuator_ctrlrange[:] = -50, 50
        mujoco.mj_setConst(model, mujoco.MjData(model))
        super().__init__(model, qpos, qvel)

    @property
    def observation(self) -> Array:
        return np.concatenate([self.data.qpos, self.data.qvel, self.data.subtree_com[1]])


def test_maml2017_is_a_plain_loop_of_mujocos_calls() -> None:
    """50 substeps of 0.001 s a control step, joints driven into their limits: to 1e-9 (another order of factors)."""
    task, rng = find_preset(NAME, "maml2017"), np.random.default_rng(0)
    qpos, qvel = 0.01 * rng.normal(size=5), 0.1 * rng.normal(size=5)
    oracle, worlds, bent = Oracle(qpos, qvel), make_worlds(task, 2), 0.0
    worlds.set_tasks(GOALS)
    put(worlds, qpos, qvel)
    for t, action in enumerate(random_actions(task, 100) + torch.tensor([0.5, -0.5])):
        action = action.clamp(-1, 1)
        oracle.step(50 * action.numpy(), 50)
        outcome = worlds.step(action.expand(2, 2))
        np.testing.assert_allclose(worlds.observe()[1].numpy(), oracle.observation, rtol=0, atol=1e-9, err_msg=str(t))
        velocity = center_of_mass_velocity(oracle.model, oracle.data)
        expected = -1.5 * np.abs(velocity - GOALS.double().numpy()) - 0.5e-2 * np.square(action.numpy()).sum()
        np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=1e-9)
        bent = max(bent, np.abs(oracle.data.qpos[3:]).max())
    assert bent > np.deg2rad(100)
    assert task.model().opt.disableflags == oracle.model.opt.disableflags
    assert task.model().opt.iterations == oracle.model.opt.iterations


@pytest.mark.parametrize("preset", ["maml2017", "promp", "v5"])
def test_task_draws(preset: str) -> None:
    """10,000 velocities, uniform in [0.1, 0.2]."""
    velocities = find_preset(NAME, preset).sample(10_000, torch.Generator().manual_seed(0))
    assert_distributed(velocities[:, None].double() - 0.15, "U", 0.05)


@pytest.mark.parametrize(
    ("preset", "position", "velocity"),
    [("maml2017", ("N", 0.01), ("N", 0.1)), ("promp", ("U", 0.1), ("U", 0.1)), ("v5", ("U", 0.1), ("U", 0.1))],
)
def test_reset_noise_is_that_of_the_preset(
    preset: str, position: tuple[str, float], velocity: tuple[str, float]
) -> None:
    """5 positions and 5 velocities of 4,000 worlds, about 0."""
    worlds = make_worlds(find_preset(NAME, preset), 4000)
    start(worlds)
    assert_distributed(worlds.physics.bind("qpos"), *position)
    assert_distributed(worlds.physics.bind("qvel"), *velocity)


@pytest.mark.parametrize(
    ("preset", "horizon", "obs_dim", "control_step"),
    [("maml2017", 200, 13, 0.05), ("promp", 200, 8, 0.04), ("v5", 1000, 8, 0.04)],
)
def test_presets(preset: str, horizon: int, obs_dim: int, control_step: float) -> None:
    task = find_preset(NAME, preset)
    assert (task.spec.horizon, task.spec.obs_dim, task.spec.action_dim) == (horizon, obs_dim, 2)
    assert (task.spec.terminates, task.spec.has_success) == (False, False)
    assert task.frame_skip * task.model().opt.timestep == pytest.approx(control_step)


def test_definitions_that_cannot_work_are_refused() -> None:
    with pytest.raises(BadField, match="min_velocity"):
        replace(find_preset(NAME), min_velocity=0.2)
