"""The ant's tasks against gymnasium's own environment and against a plain loop of MuJoCo's calls."""

from dataclasses import replace

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from mujoco_checks import Array, Plain, check_that_only_numbers_leave, make_worlds, put, random_actions, start
from test_half_cheetah import SEED_1, assert_distributed, center_of_mass_velocity
from torch import Tensor

from metarl.envs.fields import BadField
from metarl.envs.locomotion.ant import XML
from metarl.envs.locomotion.ant_goal import AntGoal
from metarl.envs.registry import find_preset

DIR, DIR_2D, VEL, GOAL = "ant_dir", "ant_dir_2d", "ant_vel", "ant_goal"
V5 = [(DIR, "v5"), (DIR_2D, "v5"), (VEL, "v5"), (GOAL, "v5")]
PRESETS = [
    *((DIR, "maml2017"), (DIR, "promp"), (DIR, "pearl"), (DIR, "varibad")),
    *((DIR_2D, "promp"), (DIR_2D, "pearl"), (VEL, "maml2017")),
    *((GOAL, "maml2017"), (GOAL, "promp"), (GOAL, "pearl"), (GOAL, "varibad"), *V5),
]
GOALS = {
    DIR: torch.tensor([-1.0, 1.0]),
    DIR_2D: torch.tensor([[0.6, -0.8], [-1.0, 0.0]]),
    VEL: torch.tensor([0.25, 2.0]),
    GOAL: torch.tensor([[2.0, -1.0], [-0.5, 0.25]]),
}
BENT = [0.0, 0.0, 0.55, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, -1.0, 0.0, -1.0, 0.0, 1.0]  # init_qpos of the file


@pytest.mark.parametrize(("name", "preset"), [(VEL, "maml2017"), (GOAL, "promp")])
def test_only_numbers_leave_under_thousands_of_wild_actions(name: str, preset: str) -> None:
    """4,800 control steps on either clock, with and without an end of the episode on its back."""
    check_that_only_numbers_leave(find_preset(name, preset), num_steps=300, num_tasks=8)


# --- v5: gymnasium's Ant-v5 is the oracle


@pytest.mark.parametrize("name", [DIR, GOAL])
def test_v5_is_gymnasiums_environment_but_for_the_task(name: str) -> None:
    """For 200 steps, in part fallen: observation to the bit, bonus, control cost and end.

    Gymnasium differences the torso's position of one substep before; the reward here takes the present one.
    """
    env = gymnasium.make(
        "Ant-v5",
        include_cfrc_ext_in_observation=False,
        contact_cost_weight=0.0,
        exclude_current_positions_from_observation=name == DIR,
        ctrl_cost_weight=0.5 if name == DIR else 0.1,
        healthy_reward=1.0 if name == DIR else 0.0,
        terminate_when_unhealthy=name == DIR,
    ).unwrapped
    first, _ = env.reset(seed=0)
    task, goals = find_preset(name, "v5"), GOALS[name].double().numpy()
    worlds = make_worlds(task, 2)
    worlds.set_tasks(GOALS[name])
    put(worlds, env.data.qpos, env.data.qvel)
    assert torch.equal(worlds.observe()[1], torch.from_numpy(first))
    falls = 0
    for t, action in enumerate(random_actions(task, 200)):
        before = env.data.qpos[:2].copy()
        obs, _, terminated, _, info = env.step(action.numpy())
        after = env.data.qpos[:2]
        outcome = worlds.step(action.expand(2, 8))
        assert torch.equal(worlds.observe(), torch.from_numpy(obs).expand(2, -1)), f"step {t}"
        progress = goals * (after - before)[0] / env.dt if name == DIR else -np.abs(after - goals).sum(1)
        expected = progress + info["reward_survive"] + info["reward_ctrl"]
        np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=1e-12)
        assert outcome.terminated.tolist() == [terminated, terminated]
        falls += terminated
    env.close()
    assert 0 < falls < 200 or name == GOAL


def test_v5_has_gymnasiums_time_limit() -> None:
    assert {find_preset(*key).horizon for key in V5} == {gymnasium.spec("Ant-v5").max_episode_steps}


# --- every preset: a plain loop of mj_step and mj_forward is the oracle


class Oracle(Plain):
    """What the originals' code says, in numpy, of a model edited here."""

    def __init__(self, preset: str, qpos: Array, qvel: Array) -> None:
        model = mujoco.MjModel.from_xml_path(str(XML))
        if preset == "maml2017":  # cbfinn/maml_rl: vendor/mujoco_models/ant.xml
            model.opt.timestep = 0.02
            model.geom_solimp[:, :3] = 0.8, 0.8, 0.01
        super().__init__(model, qpos, qvel)
        self.preset = preset

    def control(self, action: Array) -> None:
        self.before = self.data.qpos[:2].copy()
        self.step(action, 1 if self.preset == "maml2017" else 5)

    @property
    def contacts(self) -> Array:
        mujoco.mj_rnePostConstraint(self.model, self.data)
        return np.clip(self.data.cfrc_ext.ravel(), -1, 1)

    def observation(self, name: str) -> Array:
        data, preset = self.data, self.preset
        minimal = np.concatenate([data.qpos[2:], data.qvel])
        full = np.concatenate([data.qpos, data.qvel, self.contacts])
        if preset == "maml2017":
            return np.concatenate([full, data.xmat[1], data.subtree_com[1]])
        if name == GOAL:
            silent = np.concatenate([data.qpos, data.qvel, np.zeros(84)])
            return {"pearl": silent, "v5": silent[:29]}.get(preset, full)
        return full[2:] if preset == "promp" else minimal

    def reward(self, name: str, goal: Array, action: Array) -> float:
        force, effort, height = np.square(self.contacts).sum(), np.square(action).sum(), self.data.qpos[2]
        v = (self.data.qpos[:2] - self.before) / 0.05
        if self.preset == "maml2017":
            v_x, com = center_of_mass_velocity(self.model, self.data), self.data.subtree_com[1, :2]
            costs = 0.5e-2 * effort + 0.5e-3 * force
            progress = {DIR: goal * v_x, VEL: 1 - np.abs(v_x - goal), GOAL: 4 - np.abs(com - goal).sum()}
            return progress[name] + 0.05 - costs
        if name == GOAL:
            cost = 0.1 * effort + (0.5e-3 * force if self.preset in ("promp", "varibad") else 0)
            return -np.abs(self.data.qpos[:2] - goal).sum() - cost
        if self.preset == "v5":
            progress = {DIR: goal * v[0], DIR_2D: (goal * v).sum(), VEL: -np.abs(v[0] - goal)}
            return progress[name] + (0.2 <= height <= 1) - 0.5 * effort
        angle = (np.cos(goal), np.sin(goal))
        progress = angle @ v if self.preset == "varibad" else goal * v[0] if name == DIR else (goal * v).sum()
        return progress + 1 - 0.5 * effort - (0 if self.preset == "pearl" else 0.5e-3 * force)

    def terminated(self, name: str) -> bool:
        if name == GOAL and self.preset != "maml2017":
            return False
        return not (0 if self.preset == "promp" else 0.2) <= self.data.qpos[2] <= 1


@pytest.mark.parametrize(("name", "preset"), PRESETS)
def test_a_preset_is_a_plain_loop_of_mujocos_calls(name: str, preset: str) -> None:
    """Observations to the last bit, rewards to 1e-12, ends; over a fall on the back and contacts with the floor."""
    task, goals = find_preset(name, preset), GOALS[name]
    rng = np.random.default_rng(0)
    qpos, qvel = np.array(BENT) + 0.05 * rng.normal(size=15), rng.normal(size=14)
    qvel[2] = 4.0  # m/s upwards: a jump beyond 1 m, then a fall
    oracle, worlds = Oracle(preset, qpos, qvel), make_worlds(task, 2)
    worlds.set_tasks(goals)
    put(worlds, qpos, qvel)
    assert torch.equal(worlds.observe(), torch.from_numpy(oracle.observation(name)).expand(2, -1))
    ends, touched = set(), 0.0
    for t, action in enumerate(random_actions(task, 60)):
        oracle.control(action.numpy())
        outcome = worlds.step(action.expand(2, 8))
        assert torch.equal(worlds.observe(), torch.from_numpy(oracle.observation(name)).expand(2, -1)), f"step {t}"
        expected = [oracle.reward(name, goal, action.numpy()) for goal in goals.double().numpy()]
        np.testing.assert_allclose(outcome.reward.numpy(), expected, rtol=0, atol=1e-12)
        assert outcome.terminated.tolist() == [oracle.terminated(name)] * 2
        ends.add(oracle.terminated(name))
        touched = max(touched, np.abs(oracle.contacts).max())
    assert touched == 1.0
    assert ends == ({True, False} if task.spec.terminates else {False})


def test_contacts_cost_the_same_where_they_are_not_observed() -> None:
    """From the first step on, in which the belly hits the floor."""
    observed = find_preset(DIR, "promp")
    qpos, qvel = np.array([0, 0, 0.26, 1, *[0] * 11]), np.array([0, 0, -5, *[0] * 11])
    rewards = []
    for task in (observed, replace(observed, include_contacts=False), replace(observed, contact_cost=0.0)):
        worlds = make_worlds(task, 1)
        worlds.set_tasks(torch.ones(1))
        put(worlds, qpos, qvel)
        rewards.append([worlds.step(action[None]).reward.item() for action in random_actions(task, 5)])
    assert rewards[0] == rewards[1]
    assert rewards[0][0] < rewards[2][0]


@pytest.mark.parametrize(
    ("height", "preset", "ended"),
    [(0.19, "v5", True), (0.21, "v5", False), (0.19, "promp", False), (-0.01, "promp", True), (1.01, "promp", True)],
)
def test_heights_that_end_an_episode(height: float, preset: str, ended: bool) -> None:
    """The bonus of 1 is paid in that step by the originals, not by Gymnasium's v5."""
    task = find_preset(DIR, preset)
    worlds = make_worlds(task, 1)
    worlds.set_tasks(torch.ones(1))
    put(worlds, np.array([0, 0, height, 1, *[0] * 11], dtype=float), np.zeros(14))
    assert task.terminated(worlds.physics, torch.ones(1)).tolist() == [ended]
    assert task.bonus(worlds.physics).tolist() == [0.0 if ended and preset == "v5" else 1.0]


# --- tasks


# numpy.random.RandomState(2).rand(10), as printed in any text on numpy's seed 2
SEED_2 = [0.435995, 0.025926, 0.549662, 0.435322, 0.420368, 0.330335, 0.204649, 0.619271, 0.299655, 0.266827]


def test_published_tasks_are_numpys_draws() -> None:
    """Velocities are 3 u of seed 1; a direction is backward where its draw 3 u of seed 2 is below 1.5."""
    velocities = find_preset(VEL, "maml2017").published_tasks(10)
    torch.testing.assert_close(velocities, 3 * torch.tensor(SEED_1), rtol=0, atol=2e-6)
    directions = find_preset(DIR, "maml2017").published_tasks(10)
    assert directions.tolist() == [1.0 if u >= 0.5 else -1.0 for u in SEED_2]


@pytest.mark.parametrize(
    ("name", "preset"), [key for key in PRESETS if key not in ((VEL, "maml2017"), (DIR, "maml2017"))]
)
def test_other_presets_have_no_published_tasks(name: str, preset: str) -> None:
    assert find_preset(name, preset).published_tasks(10) is None


def draws(name: str, preset: str) -> Tensor:
    return find_preset(name, preset).sample(10_000, torch.Generator().manual_seed(0))


def test_task_draws_on_a_line() -> None:
    """Of 10,000; :func:`assert_distributed` allows 6 standard errors."""
    directions = draws(DIR, "v5")
    assert set(directions.tolist()) == {-1.0, 1.0}
    assert abs(directions.mean()) < 6 / 100
    for preset in ("maml2017", "v5"):
        assert_distributed(draws(VEL, preset)[:, None] - 1.5, "U", 1.5)


@pytest.mark.parametrize("preset", ["promp", "pearl", "v5"])
def test_task_draws_on_the_circle(preset: str) -> None:
    """Unit vectors whose angle is uniform in [-pi, pi]."""
    directions = draws(DIR_2D, preset)
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(10_000))
    assert_distributed(torch.atan2(directions[:, 1], directions[:, 0])[:, None], "U", np.pi)


@pytest.mark.parametrize("preset", ["promp", "pearl", "varibad", "v5"])
def test_task_draws_in_the_disk(preset: str) -> None:
    """Squared radii are uniform in [0, 9] as angles are in [-pi, pi], and neither tells of the other."""
    goals = draws(GOAL, preset)
    area, angle = goals.square().sum(1) - 4.5, torch.atan2(goals[:, 1], goals[:, 0])
    assert_distributed(area[:, None], "U", 4.5)
    assert_distributed(angle[:, None], "U", np.pi)
    assert abs(torch.corrcoef(torch.stack([area, angle]))[0, 1]) < 6 / 100


def test_task_draws_in_the_square() -> None:
    goals = draws(GOAL, "maml2017")
    assert_distributed(goals, "U", 3.0)
    assert abs(torch.corrcoef(goals.T)[0, 1]) < 6 / 100


def test_a_goal_is_drawn_where_it_is() -> None:
    model = find_preset(GOAL).model_of(torch.tensor([1.5, -2.5]))
    np.testing.assert_allclose(model.site("goal").pos[:2], [1.5, -2.5])


# --- resets and presets


@pytest.mark.parametrize("name", [DIR, VEL, GOAL])
def test_maml2017_starts_on_bent_legs(name: str) -> None:
    """15 positions and 14 velocities of 4,000 worlds: N(0, 0.01) and N(0, 0.1)."""
    worlds = make_worlds(find_preset(name, "maml2017"), 4000)
    start(worlds)
    assert_distributed(worlds.physics.bind("qpos") - torch.tensor(BENT, dtype=torch.float64), "N", 0.01)
    assert_distributed(worlds.physics.bind("qvel"), "N", 0.1)


@pytest.mark.parametrize(("name", "preset"), [(DIR, "promp"), (GOAL, "pearl"), (VEL, "v5")])
def test_other_presets_start_on_straight_legs(name: str, preset: str) -> None:
    """0.75 m high, upright: U(-0.1, 0.1) and N(0, 0.1)."""
    worlds = make_worlds(find_preset(name, preset), 4000)
    start(worlds)
    straight = torch.tensor([0, 0, 0.75, 1, *[0] * 11], dtype=torch.float64)
    assert_distributed(worlds.physics.bind("qpos") - straight, "U", 0.1)
    assert_distributed(worlds.physics.bind("qvel"), "N", 0.1)


@pytest.mark.parametrize(
    ("name", "preset", "horizon", "obs_dim", "terminates"),
    [
        *((name, "maml2017", 200, 125, True) for name in (DIR, VEL, GOAL)),
        *((DIR, "promp", 200, 111, True), (DIR, "pearl", 200, 27, True), (DIR, "varibad", 200, 27, True)),
        *((DIR_2D, "promp", 200, 111, True), (DIR_2D, "pearl", 200, 27, True)),
        *((GOAL, preset, 200, 113, False) for preset in ("promp", "pearl", "varibad")),
        *((name, "v5", 1000, 27, True) for name in (DIR, DIR_2D, VEL)),
        (GOAL, "v5", 1000, 29, False),
    ],
)
def test_presets(name: str, preset: str, horizon: int, obs_dim: int, terminates: bool) -> None:
    task = find_preset(name, preset)
    assert (task.spec.horizon, task.spec.obs_dim, task.spec.terminates) == (horizon, obs_dim, terminates)
    assert (task.spec.action_dim, task.spec.has_success) == (8, False)
    control_step = task.frame_skip * task.model().opt.timestep
    assert control_step == pytest.approx(0.02 if preset == "maml2017" else 0.05)
    assert task.make(1, 2, seed=0, num_threads=1).reset().shape == (1, 2, obs_dim)


def test_definitions_that_cannot_work_are_refused() -> None:
    with pytest.raises(BadField, match="healthy"):
        replace(find_preset(DIR), healthy=(1.0, 0.2))
    with pytest.raises(BadField, match="max_velocity"):
        replace(find_preset(VEL), max_velocity=0.0)
    with pytest.raises(BadField, match="radius"):
        AntGoal(radius=0.0)
