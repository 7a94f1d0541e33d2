"""``metarl evaluate`` as a user starts it, on tiny runs; and the held-out tests during training."""

import io
import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from metarl import cli
from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.cli import verbs
from metarl.envs.metaworld import ML10, MT1
from metarl.envs.small.bandit import Bandit
from metarl.envs.small.navigation import Navigation
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.reports.published import PUBLISHED, published_success
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.session import execute, held_out_metrics
from metarl.runs.snapshot import initial_progress

pytestmark = pytest.mark.usefixtures("one_thread")
POINTS = Experiment(
    task=Navigation(horizon=5), learner=MAML(adapt_steps=2), num_tasks=2, num_envs=2, episodes=4, iterations=2
)
BANDITS = Experiment(
    task=Bandit(arms=3), learner=RL2(RecurrentPolicy(memory_size=4)), num_tasks=2, num_envs=1, episodes=4, iterations=1
)


PAPERS = MAML(GaussianMLP((100, 100), "relu"))
THREE_TASKS = Protocol(tasks=3)


def trained(experiment: Experiment, root: Path) -> Path:
    run = create_run(replace(experiment, eval_interval=0), root, "run")
    assert execute(replace(experiment, eval_interval=0), run, console=Console(file=io.StringIO())) == 0
    return run


def evaluated(run: Path, *, protocol: Protocol = THREE_TASKS, **options: Any) -> tuple[dict[str, Any], str]:
    """The record that an evaluation leaves, and what it shows."""
    console = Console(file=io.StringIO(), width=200)
    evaluate_run(run, protocol, console=console, **({"pretrain_iterations": None} | options))
    newest = max(run.glob("evaluation*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert newest.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    return json.loads(newest.read_text()), console.file.getvalue()


def test_the_comparison_is_trained_on_as_many_steps_and_but_once(tmp_path: Path) -> None:
    """2 iterations with 3 batches each are 6 of a single one."""
    run = trained(POINTS, tmp_path)
    record, shown = evaluated(run)
    joint = load_experiment(run / "pretrained")
    assert joint.iterations == 6
    assert joint.learner.adapt_steps == 0
    own, rows = ((folder / "progress.csv").read_text().splitlines() for folder in (run, run / "pretrained"))
    assert len(rows) == 1 + 6
    assert [table[-1].split(",")[1] for table in (own, rows)] == [str(2 * 2 * 4 * 5 * 3)] * 2  # env steps
    assert set(record["comparisons"]) == {
        *("MAML, greedy", "pretrained", "pretrained, greedy", "untrained", "untrained, greedy")
    }
    assert "pretrained" in shown
    again, _ = evaluated(run)
    assert (run / "pretrained" / "progress.csv").read_text().splitlines() == rows
    assert again["returns"] == record["returns"]


def test_a_trial_is_shown_by_episode_beside_its_references(tmp_path: Path) -> None:
    record, shown = evaluated(trained(BANDITS, tmp_path))
    returns = record["returns"]
    assert [len(returns), len(returns[0]), len(returns[0][0])] == [3, 4, 1]
    assert {"RL2, greedy", "untrained", "random", "Thompson sampling"} <= set(record["comparisons"])
    total = sum(e["value"] for e in record["mean"])
    assert record["trial"]["value"] == pytest.approx(total, rel=1e-6)
    assert f"{total:.2f}" in shown


@pytest.mark.slow
def test_more_steps_than_were_published_are_drawn_beside_them(tmp_path: Path) -> None:
    published = PUBLISHED["navigation", "maml2017"]
    experiment = replace(POINTS, task=Navigation.presets["maml2017"], learner=PAPERS)
    steps = len(published.returns["MAML"])
    run = trained(experiment, tmp_path)
    record, shown = evaluated(run, protocol=replace(THREE_TASKS, steps=steps), pretrain_iterations=0)
    assert len(record["mean"]) == 1 + len(published.returns["MAML"])
    assert record["published"]["returns"] == {name: list(values) for name, values in published.returns.items()}
    assert "published: Finn et al. 2017" in shown
    assert "Ours differs: 3 tasks (theirs 40)." in " ".join(shown.split())
    first = (run / "evaluation.json").read_text()
    for other in (Protocol(tasks=3, schedule="constant"), Protocol(tasks=3, episodes=1)):
        record, shown = evaluated(run, protocol=other, pretrain_iterations=0)
        assert record["published"] is None
        assert "of another protocol, and left out (" in shown
    assert sorted(path.name for path in run.glob("evaluation*.json")) == [
        "evaluation-2.json",
        "evaluation-3.json",
        "evaluation.json",
    ]
    assert (run / "evaluation.json").read_text() == first


def test_rates_of_the_second_reward_are_no_measure_of_the_first() -> None:
    assert "31.6 %" in published_success(ML10()).caption("MAML", 10)
    assert "nothing published" in published_success(ML10(reward="v1")).caption("MAML", 10)


@pytest.mark.parametrize(
    ("problem", "code", "said"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
            2,
            "lower num_envs",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_what_ends_a_command_is_said_in_a_sentence(
    problem: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise problem

    monkeypatch.setattr(verbs, "learning_curves", fail)
    with pytest.raises(SystemExit) as exit_request:
        cli.main(["plot", "runs/a"])
    assert exit_request.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def test_no_more_tasks_are_asked_for_than_there_are() -> None:
    many = replace(BANDITS, task=MT1(), eval_tasks=5)
    assert Protocol().plan(many).tasks == 50
    assert Protocol().plan(BANDITS).tasks == 1000


def test_tests_during_training_adapt_on_as_much_as_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worlds in place of episodes, so that a test is one batch long."""
    asked, make = [], Navigation.make

    def spied(self: Navigation, num_tasks: int, num_envs: int, **options: Any) -> Any:
        asked.append((num_tasks, num_envs))
        return make(self, num_tasks, num_envs, **options)

    monkeypatch.setattr(Navigation, "make", spied)
    held_out_metrics(POINTS, initial_progress(POINTS))
    assert asked == [(POINTS.eval_tasks, POINTS.episodes)]


def test_the_doctor_says_what_a_report_of_a_problem_needs(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["doctor"])
    said = capsys.readouterr().out
    for words in ("torch 2.", "mujoco 3.", "cores", "GPU:", "rendering:", "half-cheetah steps/s"):
        assert words in said


def test_the_package_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["metarl", "list"])
    runpy.run_module("metarl", run_name="__main__")
    assert "half_cheetah_dir" in capsys.readouterr().out
