"""``metarl evaluate --perturb``: each perturbation against what it says, and strength 0 as the plain evaluation."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mujoco
import pytest
import torch
from rich.console import Console
from run_checks import TINY, run_quietly

from metarl.cli.evaluate import Evaluate
from metarl.envs.api import TaskEnv
from metarl.envs.fields import BadField
from metarl.envs.locomotion.half_cheetah_rand_params import HalfCheetahRandParams
from metarl.envs.locomotion.half_cheetah_vel import HalfCheetahVel
from metarl.envs.registry import find_preset
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.perturbations import PERTURBATIONS, named, perturbed
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.reports.robustness import evaluate_perturbed
from metarl.runs.folder import create_run

pytestmark = pytest.mark.usefixtures("one_thread")
QUIET = Console(file=io.StringIO(), width=300)


def draws() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def navigation(num_tasks: int = 2, num_envs: int = 3, horizon: int = 6) -> TaskEnv:
    return Navigation(horizon=horizon).make(num_tasks, num_envs, seed=0)


GOALS = torch.tensor([[0.4, 0.3], [-0.2, 0.5]])


def test_a_delay_shifts_the_actions_of_each_episode() -> None:
    """By hand: zeros first, then what was chosen before, and again from zeros in the second episode."""
    env, by_hand = perturbed(navigation(), "delay", 2.0, draws()), navigation()
    action = torch.rand(12, 2, 3, 2, generator=draws()) - 0.5
    for one in (env, by_hand):
        one.set_tasks(GOALS)
    assert torch.equal(env.reset(), by_hand.reset())
    for t in range(12):
        age = t % 6
        expected = by_hand.step(action[t - 2] if age >= 2 else torch.zeros(2, 3, 2))
        for found, wanted in zip(env.step(action[t]), expected, strict=True):
            assert torch.equal(found, wanted)


def test_a_delay_forgets_where_one_episode_ends_early() -> None:
    env = perturbed(navigation(1, 2), "delay", 1.0, draws())
    env.set_tasks(torch.tensor([[0.1, 0.0]]))
    env.reset()
    right, still = [1.0, 0.0], [0.0, 0.0]
    env.step(torch.tensor([[right, still]]))
    step = env.step(torch.tensor([[right, right]]))  # the first world arrives, and would go right again
    assert step.terminated.tolist() == [[True, False]]
    step = env.step(torch.tensor([[still, still]]))
    assert step.next_obs.tolist() == [[[0.0, 0.0], [pytest.approx(0.1), 0.0]]]


def test_choices_wait_as_the_first_one() -> None:
    env = perturbed(Bandit(horizon=4).make(1, 1, seed=0), "delay", 1.0, draws())
    assert env.command(torch.eye(5)[3][None, None])[0, 0].tolist() == [1, 0, 0, 0, 0]  # type: ignore[attr-defined]
    assert env.command(torch.eye(5)[2][None, None])[0, 0].tolist() == [0, 0, 0, 1, 0]  # type: ignore[attr-defined]


def test_noise_has_its_deviation() -> None:
    env: Any = perturbed(navigation(50, 100), "noise", 0.3, draws())
    noise = env.command(torch.full((50, 100, 2), 0.5)) - 0.5
    assert noise.std() == pytest.approx(0.3, rel=0.03)
    assert noise.mean() == pytest.approx(0.0, abs=0.01)
    beyond = env.command(torch.full((50, 100, 2), 7.0)) - 1.0  # what the environment would have made of it
    assert beyond.mean() == pytest.approx(0.0, abs=0.01)
    bandit: Any = perturbed(Bandit().make(50, 100, seed=0), "noise", 0.4, draws())
    chosen = torch.eye(5)[0].expand(50, 100, 5)
    slipped = (bandit.command(chosen) != chosen).any(-1).float().mean()
    assert slipped == pytest.approx(0.4 * 4 / 5, abs=0.02)


def test_sensor_noise_has_its_deviation_and_one_look_is_one_observation() -> None:
    env, plain = perturbed(navigation(50, 100), "sensor", 0.2, draws()), navigation(50, 100)
    goals = torch.full((50, 2), 3.0)
    env.set_tasks(goals), plain.set_tasks(goals)
    assert (env.reset() - plain.reset()).std() == pytest.approx(0.2, rel=0.03)
    for t in range(6):
        found, expected = (one.step(torch.zeros(50, 100, 2)) for one in (env, plain))
        assert (found.next_obs - expected.next_obs).std() == pytest.approx(0.2, rel=0.03)
        assert torch.equal(found.reward, expected.reward)
        assert torch.equal(found.obs, found.next_obs) == (t < 5)


# --- physics


def physics_of(env: TaskEnv) -> Any:
    return env.worlds.physics  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["cpu", pytest.param("warp", marks=pytest.mark.slow)])
def test_twice_the_mass_is_a_model_edited_by_hand(engine: str) -> None:
    """body_mass and what follows from it, though tasks are given twice."""
    if engine == "warp":
        pytest.importorskip("mujoco_warp")
    task = HalfCheetahVel(horizon=20)
    env = task.make(1, 2, seed=0, physics=engine)
    env = perturbed(env, "mass", 1.0, draws())
    for _ in range(2):
        env.set_tasks(torch.ones(1))
    model = mujoco.MjModel.__copy__(task.model())
    model.body_mass *= 2
    model.body_inertia *= 2
    mujoco.mj_setConst(model, mujoco.MjData(model))
    for field in ("body_mass", "body_inertia", "body_subtreemass", "dof_invweight0", "body_invweight0"):
        found = physics_of(env).expand(field)[1].double()
        torch.testing.assert_close(found.flatten(), torch.tensor(getattr(model, field)).flatten(), rtol=1e-5, atol=1e-7)
    assert torch.equal(
        physics_of(env).expand("body_subtreemass")[0].double() > 1.9 * torch.tensor(task.model().body_subtreemass),
        torch.tensor(task.model().body_subtreemass) > 0,
    )


def test_a_task_of_its_own_masses_is_multiplied_once() -> None:
    task = HalfCheetahRandParams(horizon=5)
    parameter = task.sample(2, draws())
    env, plain = task.make(2, 1, seed=0), task.make(2, 1, seed=0)
    env = perturbed(env, "mass", 0.5, draws())
    env = perturbed(env, "friction", 1.0, draws())  # the last one counts: perturbations are tested one at a time
    for _ in range(3):
        env.set_tasks(parameter), plain.set_tasks(parameter)
    for field, factor in (("geom_friction", 2.0), ("body_mass", 1.0)):
        torch.testing.assert_close(physics_of(env).expand(field), factor * physics_of(plain).expand(field))


def test_meta_world_is_heavier_too() -> None:
    task = find_preset("ml1", env="reach-v3")
    env = task.make(2, 1, seed=0)
    perturbed(env, "mass", 1.0, draws())
    env.set_tasks(task.sample(2, draws()))
    env.reset()
    ((group, _),) = env.worlds.groups()  # type: ignore[attr-defined]
    found = group.physics.expand("body_mass")
    assert torch.equal(found[0], found[1])
    plain = task.make(2, 1, seed=0)
    plain.set_tasks(task.sample(2, draws()))
    ((other, _),) = plain.worlds.groups()  # type: ignore[attr-defined]
    torch.testing.assert_close(found, 2 * other.physics.expand("body_mass"))


# --- runs


@pytest.fixture(scope="module")
def cheetah(tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = replace(TINY, task=HalfCheetahVel(horizon=6), iterations=1)
    run = create_run(experiment, tmp_path_factory.mktemp("perturb"), "run")
    run_quietly(experiment, run)
    return run


def test_strength_0_is_the_plain_evaluation_to_the_bit(cheetah: Path, tmp_path: Path) -> None:
    protocol = Protocol(tasks=3, episodes=2, steps=1)
    plain = evaluate_run(cheetah, protocol, pretrain_iterations=0, console=QUIET, out=tmp_path)
    found = evaluate_perturbed(cheetah, protocol, perturb=",".join(PERTURBATIONS), console=QUIET, out=tmp_path)
    own: Any = plain["MAML"]
    for name, by_strength in found.items():
        assert torch.equal(by_strength[0.0].returns, own.returns)
        others = [strength for strength in by_strength if strength]
        assert sorted(others) == [strength for strength in PERTURBATIONS[name].strengths if strength]
        changed = [not torch.equal(by_strength[strength].returns, own.returns) for strength in others]
        assert all(changed) or name == "friction"  # in six steps, not every world slides
    record = json.loads((tmp_path / "robustness.json").read_text())
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    for part in record["perturbations"].values():
        assert part["results"][part["strengths"].index(0.0)]["mean"] == evaluation["mean"]
    assert (tmp_path / "robustness.png").stat().st_size > 5000


def test_success_counts_of_greedy_actions(tmp_path: Path) -> None:
    run = create_run(TINY, tmp_path, "run")
    run_quietly(TINY, run)
    protocol = Protocol(tasks=3, episodes=2, steps=1)
    plain: Any = evaluate_run(run, protocol, pretrain_iterations=0, console=QUIET)["MAML, greedy"]
    found = evaluate_perturbed(run, protocol, perturb="noise", strengths=(0.5,), console=QUIET)
    assert list(found["noise"]) == [0.0, 0.5]
    assert torch.equal(found["noise"][0.0].returns, plain.returns)
    for perturbation, strengths, words in (
        ("mass", (), "no MuJoCo physics"),
        ("wind", (), "noise,delay,mass,friction,sensor"),
        ("delay", (0.5,), "whole number"),
        ("delay", (5.0,), "below the 5"),
        ("noise", (-1.0,), "0 or more"),
        ("noise,delay", (1.0,), "one of them at a time"),
        (",", (), "empty"),
    ):
        with pytest.raises(BadField, match=words):
            evaluate_perturbed(run, protocol, perturb=perturbation, strengths=strengths, console=QUIET)
    with pytest.raises(BadField, match="--perturb"):
        Evaluate(run, protocol, strengths=(1.0,))(QUIET)


def test_names() -> None:
    assert named("noise, delay,noise") == ["noise", "delay"]
