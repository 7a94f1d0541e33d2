"""Seeds in lockstep: runs side by side in one process are, to the bit, what they are alone."""

import csv
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_checks import TINY, run_quietly
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarl import cli
from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.envs.lockstep import Turns
from metarl.envs.locomotion.half_cheetah import compile_model
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.locomotion.half_cheetah_rand_params import HalfCheetahRandParams
from metarl.envs.locomotion.hopper_rand_params import HopperRandParams
from metarl.envs.metaworld.benchmarks import ML1
from metarl.envs.physics import Physics, make_physics
from metarl.envs.physics.cpu import CpuPhysics
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.runs import checkpoint, lockstep
from metarl.runs.experiment import Experiment
from metarl.runs.lockstep import execute_together

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = replace(TINY, eval_interval=2, eval_tasks=2)
GRADIENTS = MAML(policy=GaussianMLP((4,), "tanh"))
MEMORY = RL2(policy=RecurrentPolicy("gru", 4), epochs=1)
KINDS = {
    "maml, parameters of the model": replace(SMALL, task=HalfCheetahRandParams(horizon=6), learner=GRADIENTS),
    "maml, falling": replace(SMALL, task=HopperRandParams(horizon=30), learner=GRADIENTS),
    "maml, small": SMALL,
    "rl2": replace(SMALL, task=HalfCheetahDir(horizon=6), learner=MEMORY, num_envs=1),
    "rl2, small": replace(SMALL, task=TabularMDP(horizon=6), learner=MEMORY, num_envs=1),
}


def of_seeds(experiment: Experiment, runs: Path, seeds: list[int]) -> tuple[list[Experiment], list[Path]]:
    folders = [runs / f"seed{seed}" for seed in seeds]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return [replace(experiment, seed=seed) for seed in seeds], folders


def left_by(run: Path) -> tuple[list[Any], list[dict[str, str]]]:
    """Learner, generators and worlds of the newest checkpoint; and the rows of the table but their times."""
    content = checkpoint.load_newest(run / checkpoint.DIRECTORY, print)
    kept = [content[name] for name in ("learner", "env", "tasks", "actions", "iteration", "env_steps")]
    with (run / "progress.csv").open() as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]
    return tree_leaves(kept), rows


def assert_same(run: Path, other: Path) -> None:
    (ours, rows), (theirs, their_rows) = left_by(run), left_by(other)
    assert rows == their_rows
    assert len(ours) == len(theirs)
    for x, y in zip(ours, theirs, strict=True):
        assert torch.equal(x, y) if isinstance(x, Tensor) else x == y


SLOW = {"maml, parameters of the model", "rl2, small"}


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in KINDS])
def test_each_run_is_what_it_is_alone(kind: str, tmp_path: Path) -> None:
    seeds = [3, 0, 5]
    experiments, together = of_seeds(KINDS[kind], tmp_path / "together", seeds)
    assert execute_together(experiments, together) == 0
    _, alone = of_seeds(KINDS[kind], tmp_path / "alone", seeds)
    for experiment, run, other in zip(experiments, alone, together, strict=True):
        run_quietly(experiment, run)
        assert_same(other, run)
    assert left_by(together[0])[1] != left_by(together[1])[1]


@pytest.mark.slow
def test_each_run_of_metaworld_is_what_it_is_alone(tmp_path: Path) -> None:
    task = ML1(env="push-v3", horizon=20)
    experiments, together = of_seeds(replace(SMALL, task=task, learner=GRADIENTS), tmp_path / "together", [0, 1])
    assert execute_together(experiments, together) == 0
    _, alone = of_seeds(SMALL, tmp_path / "alone", [0, 1])
    for experiment, run, other in zip(experiments, alone, together, strict=True):
        run_quietly(experiment, run)
        assert_same(other, run)


def test_stopped_together_they_go_on_alone_or_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = replace(KINDS["rl2"], iterations=3)
    experiments, runs = of_seeds(experiment, tmp_path / "stopped", [0, 1, 2])
    going_on = lockstep.take_turns

    def stop(iteration: int, metrics: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        going_on(iteration, metrics)

    monkeypatch.setattr(lockstep, "take_turns", stop)
    assert execute_together(experiments, runs) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert all(len(left_by(run)[1]) < 3 for run in runs)
    run_quietly(experiments[1], runs[1])
    assert execute_together([experiments[0], experiments[2]], [runs[0], runs[2]]) == 0
    _, undisturbed = of_seeds(experiment, tmp_path / "undisturbed", [0, 1, 2])
    for one, run, other in zip(experiments, undisturbed, runs, strict=True):
        run_quietly(one, run)
        assert_same(other, run)


def test_a_run_that_fails_ends_alone(tmp_path: Path) -> None:
    experiments, runs = of_seeds(KINDS["maml, falling"], tmp_path, [0, 1])
    (runs[0] / "progress.csv").write_text("iteration,env_steps\n0,8\n")  # recorded, and nothing to continue from
    with pytest.raises(ValueError, match="no checkpoint to continue from"):
        execute_together(experiments, runs)
    assert len(left_by(runs[1])[1]) == 2


@pytest.mark.parametrize("engine", ["cpu", pytest.param("warp", marks=pytest.mark.slow)])
def test_worlds_of_an_engine_in_common_do_not_feel_each_other(engine: str) -> None:
    """One seat steps three times, the other five times, in other strides: worlds that do not wait stay as they are."""
    model = compile_model(com_velocity_sensor=True)

    def play(number: int) -> list[Tensor]:
        physics: Physics = make_physics(model, 2, engine=engine, device="cpu", num_threads=1)
        mass = physics.expand("body_mass")
        mass *= 1 + number / 10
        physics.set_const()
        velocity, found = physics.bind("sensordata"), []
        physics.reset(torch.ones(2, dtype=torch.bool))
        physics.bind("qvel")[:] = number + 1
        physics.forward(torch.ones(2, dtype=torch.bool))
        for step in range(3 + 2 * number):
            physics.bind("ctrl")[:] = 0.3 * (step - 1)
            failed = physics.step(2 + number * step, torch.tensor([True, step != 1]))
            assert not failed.any()
            found.append(torch.cat([physics.bind("qpos")[0], velocity[0]]).clone())
        return found

    seats = Turns(2).run([lambda: play(0), lambda: play(1)])
    for number, seat in enumerate(seats):
        assert seat.error is None
        for ours, alone in zip(seat.result, play(number), strict=True):
            torch.testing.assert_close(ours, alone, rtol=0, atol=0 if engine == "cpu" else 1e-5)


def test_one_step_of_one_engine_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seats of two worlds: as many steps as one seat takes, each of six worlds."""
    stepped: list[int] = []
    step = CpuPhysics.step

    def counted(self: CpuPhysics, substeps: int, awake: Tensor | None = None) -> Tensor:
        stepped.append(self.num_worlds)
        return step(self, substeps, awake)

    monkeypatch.setattr(CpuPhysics, "step", counted)
    model = compile_model(com_velocity_sensor=False)

    def play() -> None:
        physics = make_physics(model, 2, engine="cpu", device="cpu", num_threads=1)
        for _ in range(4):
            physics.step(1)

    assert [seat.error for seat in Turns(3).run([play] * 3)] == [None] * 3
    assert stepped == [6] * 4


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = [
        "--num-tasks",
        "2",
        "--num-envs",
        "1",
        "--episodes",
        "1",
        "--horizon",
        "3",
        "--num-threads",
        "1",
        "--eval-interval",
        "0",
    ]
    command = ["train", "navigation", "--runs", str(tmp_path), *small]
    together = ["--seeds", "0", "4", "--name", "nav"]

    def train(*options: str) -> int:
        try:
            cli.main([*command, *options])
        except SystemExit as ended:
            return int(ended.code or 0)
        return 0

    assert train("--iterations", "1", *together) == 0
    assert train("--iterations", "2", *together, "--start-or-resume") == 0
    assert "seed 4: continuing" in capsys.readouterr().out
    assert train("--iterations", "2", "--seed", "4", "--name", "alone") == 0
    assert_same(tmp_path / "nav-seed4", tmp_path / "alone")
    for options, said in (
        (together, "nav-seed0 exists"),
        (["--seeds", "1", "1"], "seeds is 1 1: use each seed once"),
        (["--seeds", "1", "2", "--seed", "3"], "seed is given beside seeds 1 2"),
        (["--seeds", "1", "2", "--track", "wandb"], "leave track out"),
    ):
        assert train(*options) == 2
        assert said in capsys.readouterr().err
