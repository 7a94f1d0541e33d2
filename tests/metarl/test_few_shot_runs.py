"""Few-shot runs: the same commands, folders, checkpoints and reports as everybody's."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import gymnasium
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils._pytree import tree_leaves

import metarl
from metarl import cli, presets
from metarl.algorithms.maml import MAML
from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset
from metarl.fewshot import LEARNERS, FewShotMAML, Sinusoid
from metarl.reports.curves import read_scalars
from metarl.runs import checkpoint
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.supervised import FewShotExperiment

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = ["--iterations", "2", "--updates", "2", "--num-tasks", "3", "--eval-interval", "1", "--eval-tasks", "4"]
TINY += ["--num-threads", "1"]
NAMES = [cls.called for cls in LEARNERS.values()]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def metarl_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """``metarl`` in ``tmp_path`` and in this process: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main(list(arguments))
        except SystemExit as exit_request:
            code = exit_request.code if isinstance(exit_request.code, int) else 0
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("task", "learner"),
    [*(("digits", name) for name in NAMES), *(("sinusoid", name) for name in NAMES if name != "prototypical")],
)
def test_every_learner_trains_and_leaves_a_complete_record(
    metarl_command: Run, task: str, learner: str, tmp_path: Path
) -> None:
    code, out, err = metarl_command("train", task, "--learner", learner, *TINY, "--name", "tiny")
    assert code == 0, err + out
    assert "metarl video" not in out
    folder = tmp_path / "runs" / "tiny"
    config = json.loads((folder / "config.json").read_text())
    assert config["learner"]["class"] in LEARNERS
    assert {"num_envs", "episodes", "physics"} & set(config) == set()
    tags = set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])
    measure = "accuracy" if task == "digits" else "loss"
    assert {f"meta_train/{measure}_post", f"meta_test/{measure}_step_0", "time/examples_per_second"} <= tags
    steps, _ = read_scalars(folder, ["meta_train/loss_post"])["meta_train/loss_post"]
    per_task = 80 if task == "digits" else 20
    assert steps.tolist() == [2 * 3 * per_task, 4 * 3 * per_task]  # updates x tasks x examples
    assert load_experiment(folder).task.name == task


def test_a_resumed_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole = replace(presets.make("sinusoid", "maml", "meta_sgd"), iterations=4, updates=2, num_tasks=3, eval_interval=1)
    metarl.fit(whole, tmp_path / "whole", quiet=True)
    metarl.fit(replace(whole, iterations=2), tmp_path / "halves", quiet=True)
    cli.main(["train", "--resume", str(tmp_path / "halves"), "--iterations", "4"])
    ours, theirs = (
        checkpoint.load(tmp_path / name / "checkpoints" / "iteration_00000004.ckpt") for name in ("halves", "whole")
    )
    for a, b in zip(tree_leaves(ours), tree_leaves(theirs), strict=True):
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    tags = ["meta_train/loss_pre", "meta_train/loss_post", "meta_test/loss_step_1", "train/loss_before"]
    for tag, (steps, values) in read_scalars(tmp_path / "whole", tags).items():
        found = read_scalars(tmp_path / "halves", tags)[tag]
        assert (found[0].tolist(), found[1].tolist()) == (steps.tolist(), values.tolist())


def test_evaluate_and_plot(metarl_command: Run, tmp_path: Path) -> None:
    metarl_command("train", "sinusoid", "--learner", "maml", *TINY, "--name", "wave")
    code, out, err = metarl_command("evaluate", "runs/wave", "--tasks", "5", "--steps", "2", "--schedule", "halved")
    assert code == 0, err + out
    record = json.loads((tmp_path / "runs" / "wave" / "evaluation.json").read_text())
    assert record["protocol"]["step_size_scales"] == [1.0, 0.5]
    assert set(record["comparisons"]) == {"untrained", "Nearest", "pretrained"}
    assert [len(record["loss"]), len(record["loss"][0]), len(record["mean"])] == [5, 3, 3]
    for step, mean in enumerate(record["mean"]):
        values = [row[step] for row in record["loss"]]
        assert mean["value"] == pytest.approx(sum(values) / 5)
        assert mean["low"] <= mean["value"] <= mean["high"]
    assert (tmp_path / "runs" / "wave" / "evaluation.png").stat().st_size > 10_000
    code, out, err = metarl_command("plot", "runs/wave", "--out", "wave.png")
    assert code == 0, err + out
    assert (tmp_path / "wave.png").stat().st_size > 10_000


def test_held_out_classes_are_tested_with_intervals(metarl_command: Run, tmp_path: Path) -> None:
    metarl_command("train", "digits", "--learner", "prototypical", *TINY, "--name", "p")
    code, out, err = metarl_command("evaluate", "runs/p", "--tasks", "6", "--episodes", "2")
    assert code == 0, err + out
    assert "accuracy on 6 held-out tasks" in out
    record = json.loads((tmp_path / "runs" / "p" / "evaluation.json").read_text())
    assert record["protocol"]["steps"] == ["adapted"]
    assert 0.2 < record["comparisons"]["Nearest"]["mean"][0]["value"] < 1
    assert len(record["accuracy"]) == 6
    assert metarl_command("evaluate", "runs/p", "--steps", "2")[2].startswith(
        "error: steps is 2: prototypical takes no inner steps, leave it out"
    )
    assert "adaptation_episodes is 3" in metarl_command("evaluate", "runs/p", "--adaptation-episodes", "3")[2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sinusoid", "--learner", "rl2"], "learner is 'rl2': of examples, use one of maml, reptile, prototypical"),
        (["sinusoid", "--learner", "prototypical"], "task is a regression: prototypical tells classes apart"),
        (["sinusoid", "--learner", "maml", "--num-envs", "3"], "--num-envs"),
        (["navigation", "--learner", "prototypical"], "learner is 'prototypical': use one of maml, promp"),
        (["omniglot", "--learner", "maml"], "folder is 'data/omniglot': it has no images_background/"),
        (["digits", "--learner", "maml", "--ways", "6"], "ways is 6: digits has 5 classes held out"),
        (["digits", "--learner", "maml", "--updates", "0"], "updates is 0: use at least 1"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(
    metarl_command: Run, arguments: list[str], said: str, tmp_path: Path
) -> None:
    code, _, err = metarl_command("train", *arguments)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert list(tmp_path.iterdir()) == []


def test_learners_of_policies_do_not_take_examples(tmp_path: Path) -> None:
    with pytest.raises(BadField, match="learner is a MAML: tasks of examples need one of FewShotMAML"):
        FewShotExperiment(Sinusoid(), MAML())
    with pytest.raises(BadField, match="task is 'navigation': it has worlds and no examples"):
        FewShotExperiment(find_preset("navigation"), FewShotMAML())
    with pytest.raises(ValueError, match="its learner, MAML, is none of FewShotMAML"):
        create_run(Experiment(Sinusoid(), MAML()), tmp_path, "no")
    assert list(tmp_path.iterdir()) == []


def test_tasks_of_examples_are_listed_and_are_no_environments(metarl_command: Run) -> None:
    code, out, _ = metarl_command("list")
    assert code == 0
    rows = [line.split()[:6] for line in out.splitlines()]
    assert ["sinusoid", "k10", "2", "1", "1", "-"] in rows
    assert ["digits", "n5_k1", "5", "64", "of", "5"] in rows
    assert "metarl/Sinusoid-v0" not in gymnasium.registry


@pytest.mark.slow  # 20 CPU seconds
def test_the_learned_initialization_adapts_faster_than_the_pretrained_one() -> None:
    """A small version of the paper's figure: 10 examples, one step; minutes make it the paper's."""
    tasks, draws = Sinusoid(), torch.Generator().manual_seed(1)
    start = presets.make("sinusoid", "maml")
    after = {}
    for name, learner in {"maml": start.learner, "joint": start.learner.without_adaptation()}.items():
        learner = replace(learner, learning_rate=5e-3)
        state = learner.init(tasks.spec, torch.Generator().manual_seed(0))
        for _ in range(400):
            state, _ = learner.update(state, tasks.draw(tasks.sample(25, draws), draws), draws)
        episodes = tasks.draw(tasks.held_out(500, torch.Generator().manual_seed(2)), torch.Generator().manual_seed(3))
        curve = start.learner.predictions(state, episodes, [1.0] * 5)
        after[name] = [(x - episodes.query.y).square().mean().item() for x in curve]
    assert after["maml"][1] < 0.75 * after["maml"][0]
    assert min(after["joint"]) > 1.2 * after["maml"][1]
