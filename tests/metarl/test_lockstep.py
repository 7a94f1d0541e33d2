"""Seeds in lockstep: runs side by side in one process are, to the bit, what they are alone."""

import csv
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from run_checks import TINY, run_quietly
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from metarl import cli
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.algorithms.promp import ProMP
from metarl.algorithms.rl2 import RL2
from metarl.cli.train import Train
from metarl.cli.train import of_seeds as of_seeds_asked
from metarl.envs.api import Several, drawn
from metarl.envs.fields import BadField
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.locomotion.half_cheetah_rand_params import HalfCheetahRandParams
from metarl.envs.locomotion.hopper_rand_params import HopperRandParams
from metarl.envs.metaworld.benchmarks import ML1, ML10
from metarl.envs.physics.cpu import CpuPhysics
from metarl.envs.small.tabular_mdp import TabularMDP
from metarl.evaluate import HELD_OUT_SEED
from metarl.lockstep import Turns, Wish, present
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.rollout import rollout
from metarl.runs import checkpoint, lockstep
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.lockstep import execute_together

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = replace(TINY, eval_interval=2, eval_tasks=2)
POLICY = GaussianMLP((16,), "tanh")
MEMORY = RL2(policy=RecurrentPolicy("gru", 4), epochs=1)
CHEETAH = replace(SMALL, task=HalfCheetahDir(horizon=5), learner=MAML(policy=POLICY, outer=PPO(epochs=1)))
RECURRENT = replace(CHEETAH, learner=MEMORY, num_envs=1)
FALLING = replace(SMALL, task=HopperRandParams(horizon=24), learner=CHEETAH.learner, num_envs=1, eval_interval=0)
KINDS = {
    "parameters of the model": replace(CHEETAH, task=HalfCheetahRandParams(horizon=5)),
    "falling": FALLING,
    "worlds of its own": replace(SMALL, task=TabularMDP(horizon=5), learner=MEMORY, num_envs=1),
}
SLOW = {
    "trpo": replace(CHEETAH, learner=MAML(policy=POLICY)),
    "promp": replace(CHEETAH, learner=ProMP(policy=POLICY)),
    "rl2": RECURRENT,
    "falling, at least so many steps": replace(FALLING, min_steps=150, eval_interval=1),
    "Meta-World": replace(CHEETAH, task=ML1(env="push-v3", horizon=20)),
    "ten tasks": replace(CHEETAH, task=ML10(horizon=10), num_tasks=10, eval_tasks=5),
    "rl2, ten tasks": replace(RECURRENT, task=ML10(horizon=10), num_tasks=10, eval_tasks=5),
}
ALL = [pytest.param(one, id=name) for name, one in KINDS.items()]
ALL += [pytest.param(one, id=name, marks=pytest.mark.slow) for name, one in SLOW.items()]


def of_seeds(experiment: Experiment, runs: Path, seeds: list[int]) -> tuple[list[Experiment], list[Path]]:
    folders = [runs / f"seed{seed}" for seed in seeds]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return [replace(experiment, seed=seed) for seed in seeds], folders


def rows_of(run: Path) -> list[dict[str, str]]:
    """The table but its times."""
    with (run / "progress.csv").open() as file:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in csv.DictReader(file)]


def left_by(run: Path, *, momentary: bool = False) -> dict[str, Any]:
    """Everything in the newest checkpoint; worlds that rest at the end of a rollout may be in any state."""
    content = checkpoint.load_newest(run / checkpoint.DIRECTORY, print)
    found = {keystr(path): leaf for path, leaf in tree_flatten_with_path(content)[0]}
    passing = ("['env']['worlds']", "['env']['clock']", "['env']['spoiled']", "['env']['draws']['steps']")
    return {name: leaf for name, leaf in found.items() if momentary or not name.startswith(passing)}


def assert_same(run: Path, other: Path, *, momentary: bool = False) -> None:
    ours, theirs = left_by(run, momentary=momentary), left_by(other, momentary=momentary)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        if isinstance(value, Tensor):
            assert torch.equal(value, theirs[name]), name
        else:
            assert value == theirs[name], name
    assert rows_of(run) == rows_of(other)


@pytest.mark.parametrize("experiment", ALL)
def test_each_run_is_what_it_is_alone(experiment: Experiment, tmp_path: Path) -> None:
    seeds = [3, 0]
    experiments, together = of_seeds(experiment, tmp_path / "together", seeds)
    assert execute_together(experiments, together) == 0
    _, alone = of_seeds(experiment, tmp_path / "alone", seeds)
    for one, run, other in zip(experiments, alone, together, strict=True):
        run_quietly(one, run)
        assert_same(other, run, momentary=not experiment.task.spec.terminates)
    assert rows_of(together[0]) != rows_of(together[1])


@pytest.mark.slow
def test_each_run_on_warp_is_what_it_is_alone(tmp_path: Path) -> None:
    pytest.importorskip("mujoco_warp")
    experiments, together = of_seeds(replace(CHEETAH, physics="warp", eval_interval=0), tmp_path / "together", [0, 1])
    assert execute_together(experiments, together) == 0
    _, alone = of_seeds(CHEETAH, tmp_path / "alone", [0, 1])
    for one, run, other in zip(experiments, alone, together, strict=True):
        run_quietly(one, run)
        assert_same(other, run, momentary=True)


@pytest.mark.parametrize("learner", [MAML(policy=POLICY, adapt_steps=1), MEMORY], ids=["maml", "rl2"])
def test_one_step_of_physics_serves_all_and_so_does_one_of_a_policy_for_each_task(
    learner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped: list[int] = []
    acted: list[int] = []
    step, act = CpuPhysics.step, type(learner).act

    def counted(self: CpuPhysics, *arguments: Any) -> Tensor:
        stepped.append(self.num_worlds)
        return step(self, *arguments)

    def counted_act(self: Any, actor: Any, obs: Tensor, *arguments: Any) -> Any:
        acted.append(len(obs))
        return act(self, actor, obs, *arguments)

    monkeypatch.setattr(CpuPhysics, "step", counted)
    monkeypatch.setattr(type(learner), "act", counted_act)
    small = replace(CHEETAH, learner=learner, iterations=1, eval_interval=0, num_envs=1, episodes=1)
    assert execute_together(*of_seeds(small, tmp_path, [0, 1, 2])) == 0
    rollouts = learner.adapt_steps + 1
    assert stepped == [6] * 5 * rollouts
    assert acted == ([6] * 5 * rollouts if learner.adapt_steps else [2] * 15)


def stopped_by_signal(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """Sends SIGTERM when the first seed has completed so many iterations."""
    note = lockstep.Board.note

    def stop(self: Any, number: int, iteration: int, metrics: Any) -> None:
        note(self, number, iteration, metrics)
        if (number, iteration) == (0, after):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.5)  # the main thread hears it

    monkeypatch.setattr(lockstep.Board, "note", stop)


def test_stopped_together_they_go_on_alone_or_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiments, runs = of_seeds(replace(RECURRENT, iterations=3), tmp_path / "stopped", [0, 1, 2])
    with monkeypatch.context() as patch:
        stopped_by_signal(patch, after=2)
        assert execute_together(experiments, runs) == 128 + signal.SIGTERM
    assert [left_by(run)["['iteration']"] for run in runs] == [1, 1, 1]
    run_quietly(experiments[1], runs[1])
    run_quietly(replace(experiments[0], iterations=2), runs[0])
    assert execute_together([experiments[0], experiments[2]], [runs[0], runs[2]]) == 0  # the second is behind
    _, undisturbed = of_seeds(experiments[0], tmp_path / "undisturbed", [0, 1, 2])
    for one, run, other in zip(experiments, undisturbed, runs, strict=True):
        run_quietly(one, run)
        assert_same(other, run, momentary=True)


def test_a_signal_while_kernels_are_compiled_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiling(self: Experiment) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        raise AssertionError("it was not heard")

    monkeypatch.setattr(Experiment, "warm", compiling)
    assert execute_together(*of_seeds(SMALL, tmp_path, [0, 1])) == 128 + signal.SIGTERM


def test_a_run_that_fails_ends_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiments, runs = of_seeds(RECURRENT, tmp_path, [0, 1, 2])
    (runs[0] / "progress.csv").write_text("iteration,env_steps\n0,8\n")  # recorded, and nothing to continue from
    with pytest.raises(ValueError, match="no checkpoint to continue from"):
        execute_together(experiments, runs)
    assert f"{runs[0]} ends here: " in capsys.readouterr().err
    _, alone = of_seeds(experiments[2], tmp_path / "alone", [2])
    run_quietly(experiments[2], alone[0])
    assert_same(runs[2], alone[0], momentary=True)


def test_those_ahead_wait_and_what_is_alike_is_answered_at_once() -> None:
    answered: list[list[int]] = []

    def answer(details: list[int]) -> list[int]:
        answered.append(details)
        if 13 in details:
            raise ValueError("unlucky")
        return [10 * detail for detail in details]

    def work(kind: str, number: int, *iterations: int) -> Callable[[], list[int]]:
        def ask() -> list[int]:
            seat = present()
            assert seat is not None
            found = []
            for iteration in iterations:
                found.append(seat.ask(Wish(kind, answer, number)))
                seat.catch_up(iteration)
            return found

        return ask

    seats = Turns([work("a", 1, 1, 2, 3), work("a", 2, 2, 3), work("b", 3, 3), work("c", 13, 1)]).run()
    assert [seat.result for seat in seats] == [[10, 10, 10], [20, 20], [30], None]
    assert [str(seat.error) for seat in seats] == ["None", "None", "None", "unlucky"]
    assert answered == [[1, 2], [3], [13], [1], [1, 2]]


def test_threads_of_torch_are_those_of_the_process() -> None:
    def seen() -> int:
        seat = present()
        assert seat is not None
        found = torch.get_num_threads()
        torch.set_num_threads(1)  # as a rollout does while it waits for the others
        seat.catch_up(1)
        return found

    torch.set_num_threads(2)
    try:
        assert [seat.result for seat in Turns([seen, seen, seen]).run()] == [2, 2, 2]
    finally:
        torch.set_num_threads(1)


def test_each_part_is_drawn_by_its_own_generator() -> None:
    several = Several([torch.Generator().manual_seed(seed) for seed in (4, 2)])
    alone = [torch.Generator().manual_seed(seed) for seed in (4, 2)]
    for draw, shape in ((torch.randn, (6, 3)), (torch.rand, (2,))):
        expected = [draw((shape[0] // 2, *shape[1:]), generator=generator) for generator in alone]
        assert torch.equal(drawn(draw, shape, several), torch.cat(expected))
    several.require_unused()
    torch.rand(1, generator=several)
    with pytest.raises(BadField, match=r"drew by itself: .* draw by metarl.envs.api.drawn"):
        several.require_unused()


def test_worlds_of_all_seeds_are_moved_by_rollouts_alone() -> None:
    def work() -> None:
        env = CHEETAH.make_env(2, 1, stream="resets")
        env.set_tasks(CHEETAH.task.sample(2, torch.Generator()))
        with pytest.raises(RuntimeError, match="belong to seeds in lockstep"):
            env.reset()
        learner = CHEETAH.learner
        actor = learner.actor(learner.init(env.spec, torch.Generator()), 2)
        batch, _ = rollout(env, learner.act, actor, 1, torch.Generator())
        assert batch.reward.shape == (2, 1, 5)

    assert [seat.error for seat in Turns([work, work]).run()] == [None, None]


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = "--num-tasks 2 --num-envs 1 --episodes 1 --horizon 3 --num-threads 1 --eval-interval 0"
    options = [*small.split(), "--iterations", "1", "--name", "nav", "--seeds", "0", "4", "--start-or-resume"]
    cli.main(["train", "navigation", "--runs", str(tmp_path), *options])
    said = capsys.readouterr().out
    assert "iteration 1/1  seeds 0 4: return after " in said
    assert f"seed 4: recording in {tmp_path}/nav-seed4" in said
    experiment = load_experiment(tmp_path / "nav-seed4")
    assert experiment.seed == 4
    (alone := tmp_path / "alone").mkdir()
    run_quietly(experiment, alone)
    assert_same(tmp_path / "nav-seed4", alone, momentary=True)


def test_refuses_what_does_not_go_with_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = Train(SMALL, runs=tmp_path, name="nav", seeds=(1, 2))
    create_run(replace(SMALL, seed=2), tmp_path, "nav-seed2")
    others = replace(SMALL, learner=MAML(outer=PPO(), inner_lr=0.3))
    for changes, arguments, said in (
        ({}, [], "nav-seed2 exists: choose another --name, or continue with --start-or-resume"),
        ({"start_or_resume": True, "experiment": others}, [], "learner.inner_lr is 0.3, the run to resume has 0.1"),
        ({"seeds": (1, 2, 1)}, [], "seeds is 1 2 1: use each seed once"),
        ({"seeds": (1, HELD_OUT_SEED), "name": None}, [], f"seed is {HELD_OUT_SEED}: use another one"),
        ({}, ["--seed", "3"], "seed is given beside seeds 1 2: use one of them"),
        ({"resume": tmp_path / "nav-seed2"}, [], "seeds is 1 2: resume continues one run alone"),
        ({"track": "wandb"}, [], "seeds is 1 2: one process tracks one run, leave track out"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            of_seeds_asked(replace(options, **changes), arguments)
    found = of_seeds_asked(replace(options, start_or_resume=True), [])
    assert [(one.name, one.experiment.seed) for one in found] == [("nav-seed1", 1), ("nav-seed2", 2)]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match="start them without torchrun"):
        of_seeds_asked(options, [])
