"""What tasks say of their numbers, against the physics: the one that is named is the one that moves."""

import mujoco
import pytest

from metarl.envs.metaworld.simulation import SUBSTEP, compile_model
from metarl.envs.registry import TASKS, find_preset
from metarl.envs.signals import positions, velocities

NAMED = [
    ("half_cheetah_dir", "v5"),
    ("half_cheetah_dir", "maml2017"),
    ("ant_goal", "v5"),
    ("ant_dir", "v5"),
    ("hopper_rand_params", None),
    ("walker2d_dir", None),
    ("swimmer_vel", "v5"),
    ("swimmer_vel", "maml2017"),
    ("humanoid_dir", "v5"),
    ("cartpole_mass", None),
]


@pytest.mark.parametrize(("name", "preset"), NAMED)
def test_the_number_that_is_named_moves_with_its_joint(name: str, preset: str | None) -> None:
    task = find_preset(name, preset)
    worlds = task.make(1, 1, seed=0).worlds  # type: ignore[attr-defined]
    model = task.model()  # type: ignore[attr-defined]
    said = [signal.name for signal in task.signals().observation]
    found = set()
    for field, signals in (("qpos", positions(model)), ("qvel", velocities(model))):
        state = worlds.physics.bind(field)
        assert len(signals) == state.shape[1]
        for index, signal in enumerate(signals):
            before = worlds.observe()[0]
            state[0, index] += 0.125
            moved = (worlds.observe()[0] - before).nonzero().flatten().tolist()
            state[0, index] -= 0.125
            assert moved == [place for place, other in enumerate(said) if other == signal.name]
            found |= set(moved)
    assert len(found) == sum(not other.startswith("center of mass") for other in said)


@pytest.mark.parametrize("name", ["half_cheetah_dir", "ant_dir", "humanoid_dir", "swimmer_vel", "pendulum_mass"])
def test_a_full_action_is_the_force_that_is_named(name: str) -> None:
    task = find_preset(name)
    model = task.model()  # type: ignore[attr-defined]
    data = mujoco.MjData(model)
    for index, signal in enumerate(task.signals().action):
        for bound, ctrl in (
            (signal.low, model.actuator_ctrlrange[index, 0]),
            (signal.high, model.actuator_ctrlrange[index, 1]),
        ):
            data.ctrl[:] = 0
            data.ctrl[index] = ctrl
            mujoco.mj_forward(model, data)
            dof = int(model.jnt_dofadr[model.actuator_trnid[index, 0]])
            assert data.qfrc_actuator[dof] == pytest.approx(bound)
            assert (data.qfrc_actuator != 0).sum() == 1
        assert signal.unit == "N m"


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_number_has_a_name(name: str) -> None:
    for preset in TASKS[name].presets or {None: None}:
        task = find_preset(name, preset)
        signals = task.signals()
        for numbers, count in ((signals.observation, task.spec.obs_dim), (signals.action, task.spec.action_dim)):
            assert len({signal.name for signal in numbers}) == len(numbers) == count


def test_the_clock_is_the_physics() -> None:
    assert find_preset("half_cheetah_dir", "v5").signals().seconds == pytest.approx(0.05)
    assert find_preset("half_cheetah_dir", "maml2017").signals().seconds == pytest.approx(0.01)
    assert find_preset("ml1").signals().seconds == pytest.approx(0.0125)
    assert find_preset("bandit").signals().seconds is None


def test_metaworlds_timestep_is_its_models() -> None:
    assert compile_model("sawyer_reach_v3").opt.timestep == SUBSTEP
