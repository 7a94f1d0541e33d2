"""MuJoCo Warp, on its CPU device, against MuJoCo's C engine and against itself. The GPU runs the same kernels."""

import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path

import mujoco
import pytest
import torch
import warp
from rich.console import Console
from torch import Tensor

from metarl.algorithms.maml import MAML
from metarl.envs import api
from metarl.envs.api import find_engine
from metarl.envs.fields import BadField
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.metaworld.simulation import compile_model
from metarl.envs.mujoco_task import MujocoTask, MujocoWorlds
from metarl.envs.physics import Physics, make_physics
from metarl.envs.physics.cpu import CpuPhysics
from metarl.envs.physics.gpu import WarpPhysics
from metarl.envs.registry import TASKS
from metarl.networks.mlp import GaussianMLP
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import execute

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
DEVICE = os.environ.get("METARL_TEST_DEVICE", "cpu")  # cuda: tests/gpu.sh
if DEVICE == "cpu":
    warp.config.optimization_level = 0  # kernels compile in half the time
FAMILIES = sorted(name for name, task in TASKS.items() if issubclass(task, MujocoTask))
ONE_A_BODY = {"half_cheetah_dir", "ant_dir", "humanoid_dir", "walker2d_rand_params", "swimmer_vel", "cartpole_mass"}
DRAWER = "sawyer_drawer"


@pytest.fixture(autouse=True)
def equal_bits() -> Iterator[None]:
    """A GPU repeats its bits only where it is told to."""
    torch.use_deterministic_algorithms(DEVICE != "cpu")
    yield
    torch.use_deterministic_algorithms(False)


def everywhere(num_worlds: int) -> Tensor:
    return torch.ones(num_worlds, dtype=torch.bool)


def reset(physics: Physics, *mask: bool) -> None:
    physics.reset(torch.tensor(mask or [True] * physics.num_worlds, device=physics.device))


def of(physics: Physics, field: str) -> Tensor:
    """What a field holds now, on the host."""
    return physics.bind(field).cpu().double()


def cheetah(num_worlds: int, **buffers: int) -> WarpPhysics:
    """In the air, with velocities at random."""
    physics = WarpPhysics(HalfCheetahDir().model(), num_worlds, device=DEVICE, **buffers)
    physics.bind("qvel").copy_(torch.randn(num_worlds, 9, generator=torch.Generator().manual_seed(0)))
    return physics


def sawyer(engine: str, num_worlds: int) -> Physics:
    """An arm before a drawer that stands elsewhere in every world."""
    physics = make_physics(compile_model(DRAWER), num_worlds, engine=engine, device=DEVICE, num_threads=1)
    for field in ("xpos", "geom_xpos"):
        physics.bind(field)
    drawer = compile_model(DRAWER).body("drawer").id
    place = torch.tensor([[0.08, 0.9, 0.0], [-0.05, 0.9, 0.0], [0.0, 0.9, 0.0]])[:num_worlds]
    physics.expand("body_pos")[:, drawer] = place.to(physics.bind("qpos"))
    reset(physics)
    physics.bind("mocap_pos")[:, 0] = torch.tensor([0.0, 0.6, 0.2]).to(physics.bind("qpos"))
    return physics


def drag(physics: Physics, steps: int, *, seed: int = 0) -> None:
    """Moves the arm about, open and shut."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        draws = (2 * torch.rand(physics.num_worlds, 4, generator=generator) - 1).to(physics.bind("qpos"))
        physics.bind("mocap_pos")[:, 0] += draws[:, :3] / 100
        physics.bind("mocap_quat")[:, 0] = torch.tensor([1.0, 0.0, 1.0, 0.0]).to(draws)
        physics.bind("ctrl").copy_(torch.cat([draws[:, 3:], -draws[:, 3:]], dim=1))
        physics.step(5)


def state_bits(physics: Physics) -> list[Tensor]:
    return [field for _, field in sorted(physics.state_dict().items())]


# --- against C


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ONE_A_BODY else pytest.mark.slow) for name in FAMILIES]
)
def test_a_step_from_equal_states_agrees_with_the_c_engine(name: str) -> None:
    """Observation and reward, from states along a trajectory of the C engine; chaos has no time to grow."""
    task = next(iter(TASKS[name].presets.values()))
    worlds = {}
    for engine in ("cpu", "warp"):
        physics = make_physics(task.model(), 4, engine=engine, device=DEVICE, num_threads=1)
        worlds[engine] = MujocoWorlds(task, physics, CPU, dtype=torch.float64)
        worlds[engine].set_tasks(task.sample(4, torch.Generator().manual_seed(0)))
        worlds[engine].reset(everywhere(4), torch.Generator().manual_seed(0))
    c, warp = worlds["cpu"], worlds["warp"]
    errors = []
    for step in range(12):
        action = torch.rand(4, task.spec.action_dim, generator=torch.Generator().manual_seed(step)) * 2 - 1
        warp.load_state_dict(c.state_dict())
        expected, found = c.step(action), warp.step(action)
        scale = 1.0 + c.observe().abs()
        difference = ((c.observe() - warp.observe()) / scale).abs().amax(1)
        errors.append(torch.maximum(difference, (expected.reward - found.reward).abs() / (1 + expected.reward.abs())))
    error = torch.stack(errors)
    if name.startswith("ant"):  # Warp has other contact tangents, so that every step on the ground differs
        assert error.quantile(0.25) < 1e-5
    else:
        assert error.median() < 1e-5
        assert error.quantile(0.9) < 1e-3  # a contact that one engine meets a substep earlier
    assert warp.num_overflowed == 0


@pytest.mark.parametrize("name", ["half_cheetah_dir", pytest.param("ant_dir", marks=pytest.mark.slow)])
def test_returns_of_an_episode_are_statistically_equal(name: str) -> None:
    """Trajectories part within seconds (chaos); what a learner sees of them must not."""
    steps, num_envs = 60, 40
    task = dataclasses.replace(next(iter(TASKS[name].presets.values())), horizon=steps)
    returns = {}
    for engine in ("cpu", "warp"):
        env = task.make(2, num_envs, seed=1, device=DEVICE, physics=engine, num_threads=1)
        env.set_tasks(torch.tensor([1.0, -1.0]))
        env.reset()
        draws = torch.rand(steps, 2, num_envs, task.spec.action_dim, generator=torch.Generator().manual_seed(0))
        rewards = [env.step(2 * action.to(DEVICE) - 1).reward for action in draws]
        returns[engine] = torch.stack(rewards).sum(0).cpu()
    c, warp = returns["cpu"], returns["warp"]
    error = ((c.var(1) + warp.var(1)) / num_envs).sqrt()
    assert ((c.mean(1) - warp.mean(1)).abs() < 3.5 * error).all()
    assert torch.allclose(c.std(1), warp.std(1), rtol=0.5)


def test_welded_bodies_follow_as_in_c() -> None:
    """Warp 3.17 alone would take the weld's velocities from the substep before: 4e-4 m after one step, 7e-3 after 5."""
    c, warp = sawyer("cpu", 3), sawyer("warp", 3)
    for steps, seed in ((1, 0), (4, 1), (15, 2)):
        drag(c, steps, seed=seed), drag(warp, steps, seed=seed)
        assert (of(c, "xpos") - of(warp, "xpos")).abs().max() < 5e-6


def test_geoms_of_bodies_without_joints_move_with_them() -> None:
    """Warp places them once, when the data are made; a reset that moves a body would leave its colliders behind."""
    c, warp = sawyer("cpu", 3), sawyer("warp", 3)
    drag(c, 1), drag(warp, 1)
    assert (of(c, "geom_xpos") - of(warp, "geom_xpos")).abs().max() < 5e-6
    spread = c.bind("geom_xpos").std(0).amax()
    assert spread > 0.05, "the drawers stand in different places"


def test_parameters_of_a_world_act_as_in_a_model_edited_by_hand() -> None:
    """Mass, damping and friction of each world, and the constants that follow from masses."""
    model, scale = HalfCheetahDir().model(), torch.tensor([0.5, 1.0, 2.5])
    physics = cheetah(3)
    start, control = physics.state_dict(), torch.linspace(-1, 1, 6)
    for field in ("body_mass", "body_inertia", "dof_damping", "geom_friction"):
        parameter = physics.expand(field)
        parameter.mul_(scale.view(3, *[1] * (parameter.ndim - 1)).to(parameter))
    physics.set_const()
    for name, value in physics.state_dict().items():
        assert torch.equal(value, start[name]), f"set_const changed {name}"
    for _ in range(30):
        physics.bind("ctrl").copy_(control.expand(3, 6))
        physics.step(2)
    for world, factor in enumerate(scale.tolist()):
        edited = mujoco.MjModel.__copy__(model)
        for field in ("body_mass", "body_inertia", "dof_damping", "geom_friction"):
            getattr(edited, field)[:] *= factor
        data = mujoco.MjData(edited)
        mujoco.mj_setConst(edited, data)
        mujoco.mj_resetData(edited, data)
        data.qvel[:] = start["qvel"][world].cpu().numpy()
        data.ctrl[:] = control.numpy()
        mujoco.mj_step(edited, data, 60)
        assert torch.allclose(of(physics, "qpos")[world], torch.from_numpy(data.qpos), atol=2e-4)
        for field in ("body_subtreemass", "body_invweight0", "dof_invweight0"):
            expected = torch.from_numpy(getattr(edited, field)).float()
            assert torch.allclose(physics.expand(field)[world].cpu().reshape(expected.shape), expected, rtol=1e-4)


# --- against itself


def test_a_reset_leaves_the_bits_of_other_worlds_alone() -> None:
    physics, control = sawyer("warp", 3), sawyer("warp", 3)
    drag(physics, 5), drag(control, 5)
    reset(physics, True, False, True)
    for name, field in physics.state_dict().items():
        assert torch.equal(field[1], control.state_dict()[name][1]), name
    assert not torch.equal(physics.bind("qpos")[0], control.bind("qpos")[0])
    drag(physics, 3, seed=1), drag(control, 3, seed=1)
    assert torch.equal(physics.bind("qpos")[1], control.bind("qpos")[1])


@pytest.mark.parametrize("make", [lambda: cheetah(3), lambda: sawyer("warp", 3)], ids=["half_cheetah", "sawyer"])
def test_a_saved_state_goes_on_to_equal_bits_in_a_new_engine(make) -> None:
    """Nothing but the state decides the next step: neither what a rehearsal left behind nor the solver's history."""
    physics, fresh = make(), make()
    advance = drag if physics.bind("mocap_pos").numel() else lambda p, steps, seed=0: [p.step(5) for _ in range(steps)]
    advance(physics, 6)
    saved = physics.state_dict()
    advance(physics, 6, seed=1)
    fresh.load_state_dict(saved)
    advance(fresh, 6, seed=1)
    for name, field in physics.state_dict().items():
        assert torch.equal(field, fresh.state_dict()[name]), name


def test_a_world_has_the_same_bits_alone_and_among_others() -> None:
    many, one = cheetah(4), cheetah(1)
    one.bind("qvel").copy_(many.bind("qvel")[2:3])
    for _ in range(10):
        assert not many.step(5).any()
        one.step(5)
    assert torch.equal(many.bind("qpos")[2], one.bind("qpos")[0])


def test_a_failed_world_is_reported_and_harms_no_other() -> None:
    physics, control = cheetah(3), cheetah(3)
    for step in range(8):
        if step == 2:
            physics.bind("qvel")[1] = torch.nan
        failed = physics.step(5)
        control.step(5)
        assert failed.tolist() == [False, step >= 2, False]
    assert torch.equal(physics.bind("qpos")[[0, 2]], control.bind("qpos")[[0, 2]])
    reset(physics, False, True, False)
    assert not physics.step(5).any()
    assert physics.bind("qpos").isfinite().all()


def test_dropped_contacts_are_counted_by_episode() -> None:
    """A pool of 2 contacts for 3 cheetahs on the ground."""
    physics = cheetah(3, max_contacts=1, max_constraints=64)
    assert physics.num_overflowed == 0
    for _ in range(40):
        physics.step(5)
    assert physics.num_overflowed > 0
    before = physics.num_overflowed
    reset(physics)
    assert physics.num_overflowed == before
    roomy = cheetah(3)
    for _ in range(40):
        roomy.step(5)
    assert roomy.num_overflowed == 0


# --- the bridge to torch


def test_a_tensor_that_was_given_other_memory_is_refused() -> None:
    physics = cheetah(2)
    ctrl = physics.bind("ctrl")
    physics.step(1)
    ctrl.data = torch.ones(2, 6, device=DEVICE)  # the recorded graph would go on reading the old address
    with pytest.raises(RuntimeError, match=r"ctrl was given other memory .*: write into it in place"):
        physics.step(1)


def test_what_is_bound_or_expanded_after_the_first_step_takes_part() -> None:
    physics, control = cheetah(2), cheetah(2)
    physics.step(1), control.step(1)
    xpos, mass = physics.bind("xpos"), physics.expand("body_mass")
    mass[1] *= 3
    physics.set_const()
    physics.step(1), control.step(1)
    assert torch.equal(physics.bind("qvel")[0], control.bind("qvel")[0])
    assert not torch.equal(physics.bind("qvel")[1], control.bind("qvel")[1])
    data = mujoco.MjData(HalfCheetahDir().model())
    data.qpos[:] = of(physics, "qpos")[0].numpy()
    mujoco.mj_kinematics(HalfCheetahDir().model(), data)
    assert torch.allclose(xpos[0].cpu().double(), torch.from_numpy(data.xpos), atol=1e-5)


# --- choosing an engine


def test_auto_takes_the_engine_that_fits_the_device() -> None:
    assert find_engine("auto", "cpu") == "cpu"
    assert find_engine("auto", "cuda") == "warp"
    assert find_engine("cpu", "cuda:1") == "cpu"
    assert isinstance(make_physics(HalfCheetahDir().model(), 1), CpuPhysics)


def test_a_missing_package_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "find_spec", lambda name: None)
    with pytest.raises(BadField, match=r"physics is 'warp': MuJoCo Warp is not installed, .*metarl-toolkit\[gpu\]"):
        find_engine("warp", "cpu")
    with pytest.raises(BadField, match="physics is 'bullet': use one of auto, cpu, warp"):
        find_engine("bullet", "cpu")


# --- a whole run


def test_a_run_on_warp_resumes_to_equal_bits(tmp_path: Path) -> None:
    """Two iterations at a stretch against one, a new process' worth of new objects, and one more."""
    experiment = Experiment(
        task=HalfCheetahDir(horizon=10),
        learner=MAML(policy=GaussianMLP((8,))),
        num_tasks=2,
        num_envs=2,
        episodes=4,
        iterations=2,
        eval_interval=0,
        device=DEVICE,
        physics="warp",
        deterministic=DEVICE != "cpu",
        num_threads=1,
    )
    states = []
    for name, stretches in (("whole", (2,)), ("parts", (1, 2))):
        run = create_run(experiment, tmp_path, name)
        for iterations in stretches:
            quiet = Console(file=io.StringIO())
            assert execute(dataclasses.replace(experiment, iterations=iterations), run, console=quiet) == 0
        states.append(checkpoint.load_newest(run / checkpoint.DIRECTORY, print))
    whole, parts = states
    assert whole["iteration"] == parts["iteration"] == 2
    for name, value in whole["learner"]["meta"].items():
        assert torch.equal(value, parts["learner"]["meta"][name]), name
    for name, value in whole["env"]["worlds"].items():
        assert torch.equal(value, parts["env"]["worlds"][name]), name
