"""``metarl train``: every task with every learner that fits it, and what cannot work is refused before any work."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl import cli, presets
from metarl.algorithms import ALGORITHMS, learner_name
from metarl.cli.train import require_distinct_names
from metarl.envs.fields import BadField
from metarl.envs.registry import TASKS
from metarl.fewshot import FewShotTasks

TINY = ["--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "10", "--iterations", "2"]
TINY += ["--eval-interval", "1", "--eval-tasks", "2", "--num-threads", "1"]
LEARNERS = [learner_name(cls) for cls in ALGORITHMS.values()]
CORNERS = [(learner, "corner") for learner in ("promp", "maml", "reptile", "es_maml")]
CORNERS += [("maml", name) for name in ("fomaml", "emaml", "dice", "lvc", "meta_sgd", "cavia")]
TRIALS = ("rl2", "varibad")  # of 2 episodes
OWN = {"es_maml": ["--pairs", "1"]} | {learner: ["--episodes", "4"] for learner in TRIALS}


WORLDS = sorted(name for name, task in TASKS.items() if not issubclass(task, FewShotTasks))


def refusal(task: str, learner: str) -> str:
    """Why a learner cannot be trained on a task; empty where it can."""
    try:
        presets.make(task, learner)
    except BadField as error:
        return str(error)
    return ""


REFUSED = {(task, learner): said for task in WORLDS for learner in LEARNERS if (said := refusal(task, learner))}
PAIRS = [(task, learner) for task in WORLDS for learner in LEARNERS if (task, learner) not in REFUSED]
WITH_PRESETS = [(task, learner) for task, learner in PAIRS if presets.find(task, learner)]
BARE = list(zip([task for task in WORLDS if not presets.learners(task)], cycle(LEARNERS), strict=False))


def one_of_each_task(pairs: list[tuple[str, str]]) -> list[Any]:
    """Learners in turns; the others are slow."""
    fitting = [[pair for pair in pairs if pair[0] == task] for task in WORLDS]
    chosen = {some[turn % len(some)] for turn, some in enumerate(fitting) if some}
    assert {learner for _, learner in chosen} == set(LEARNERS)
    return [pytest.param(*pair, marks=() if pair in chosen else pytest.mark.slow) for pair in pairs]


class Finished(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Finished]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """``metarl train`` in ``tmp_path``, but in this process: starting one costs seconds."""
    monkeypatch.chdir(tmp_path)

    def train(*arguments: str) -> Finished:
        code = 0
        try:
            cli.main(["train", *arguments])
        except SystemExit as exit_request:
            code = exit_request.code if isinstance(exit_request.code, int) else 0
        return Finished(code, *capsys.readouterr())

    return train


OPTIONS = {
    "rl2": ("--memory-size", "--gae-lambda"),
    "varibad": ("--latent-size", "--gae-lambda"),
    "pearl": ("--latent-size", "--kl-weight"),
}


@pytest.mark.parametrize(("task", "learner"), WITH_PRESETS)
def test_help_explains_every_option(run: Run, task: str, learner: str) -> None:
    found = run(task, "--learner", learner, "--help")
    assert found.code == 0, found.err
    own = OPTIONS.get(learner, ("--inner-lr", "--hidden-sizes"))
    for option in ("--preset", "--task-preset", "--num-tasks", "--resume", "--device", "--horizon", *own):
        assert option in found.out
    assert all(name in found.out for name in presets.find(task, learner))


def test_help_needs_no_task(run: Run) -> None:
    found = run("--help")
    assert (found.code, found.err) == (0, "")
    assert "--learner" in found.out


@pytest.mark.parametrize(("task", "learner"), one_of_each_task([*WITH_PRESETS, *BARE]))
def test_a_tiny_run_leaves_a_complete_record(run: Run, task: str, learner: str, tmp_path: Path) -> None:
    found = run(task, "--learner", learner, *TINY, *OWN.get(learner, []), "--name", "tiny")
    assert found.code == 0, found.err + found.out
    folder = tmp_path / "runs" / "tiny"
    versions = json.loads((folder / "versions.json").read_text())
    assert {"torch", "mujoco", "gymnasium", "python", "git_commit"} <= set(versions)
    config = json.loads((folder / "config.json").read_text())
    assert config["num_tasks"] == 2
    assert config["task"]["class"] == TASKS[task].__name__
    assert config["preset"] == next(iter(presets.find(task, learner)), "default")
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"meta_train/return_pre", "meta_train/return_post", "meta_train/adaptation_gain"} <= tags
    if learner in TRIALS:
        assert {"meta_test/return_trial", "meta_test/return_episode_first", "meta_test/return_episode_last"} <= tags
    else:
        assert {"meta_test/return_step_0", "meta_test/return_step_1"} <= tags
    if learner not in ("reptile", "es_maml", "pearl"):  # whose step has not both
        assert {"train/kl", "train/meta_gradient_norm"} <= tags
    assert {"time/env_steps_per_second", "time/sampling_seconds", "time/optimization_seconds"} <= tags
    # 2 tasks x 2 worlds x 10 steps, before and after each inner step or twice a trial; fewer where episodes end early
    steps = [event.step for event in events.Scalars("meta_train/return_pre")]
    adapt_steps = config["learner"].get("adapt_steps", 1)
    assert 0 < steps[0] < steps[1] <= 2 * 2 * 2 * 10 * (1 + adapt_steps) * (2 if learner == "es_maml" else 1)


@pytest.mark.slow
@pytest.mark.parametrize(("task", "learner"), PAIRS)
def test_every_learner_trains_on_every_task_that_fits_it(run: Run, task: str, learner: str) -> None:
    found = run(task, "--learner", learner, *TINY, *OWN.get(learner, []))
    assert found.code == 0, found.err + found.out
    assert "iteration 2/2" in found.out


def test_only_actions_or_pictures_are_refused() -> None:
    assert {learner for _, learner in REFUSED} == {"pearl", "varibad"}
    assert all("discrete actions" in said or "pictures" in said for said in REFUSED.values())
    assert ("minigrid_goal", "varibad") in REFUSED


@pytest.mark.parametrize(("task", "learner"), PAIRS)
def test_every_pair_has_a_start_and_options_of_distinct_names(task: str, learner: str) -> None:
    start = presets.make(task, learner)
    assert (start.task.name, learner_name(type(start.learner))) == (task, learner)
    assert start.preset == next(iter(presets.find(task, learner)), "default")
    require_distinct_names(start)


@pytest.mark.parametrize("task", ["bandit", "tabular_mdp", "cartpole_mass"])
def test_the_policy_follows_the_actions_and_another_kind_is_refused(run: Run, task: str, tmp_path: Path) -> None:
    found = run(task, "--learner", "maml", "--policy", "gaussian-mlp")
    assert found.code == 2
    said = "policy is GaussianMLP and the task has discrete actions: use CategoricalMLP, or MLP for both"
    assert found.err == f"error: {said}\n"
    assert list(tmp_path.iterdir()) == []
    found = run(task, "--learner", "maml", *TINY[:6], "--iterations", "1", "--eval-interval", "0", "--name", "tiny")
    assert found.code == 0, found.err
    policy = json.loads((tmp_path / "runs" / "tiny" / "config.json").read_text())["learner"]["policy"]
    assert policy["class"] in ("MLP", "CategoricalMLP")
    options = ["--tasks", "2", "--steps", "1", "--adaptation-episodes", "2", "--episodes", "2"]
    cli.main(["evaluate", "runs/tiny", *options, "--pretrain-iterations", "0"])
    rows = json.loads((tmp_path / "runs" / "tiny" / "evaluation.json").read_text())["comparisons"]
    assert set(rows) == {"MAML, greedy", "untrained"}, "the agents for trials have no inner step"


@pytest.mark.parametrize("outer", ["trpo", "ppo", "gradient"])
def test_every_outer_step_and_learned_first_order_rates_train(run: Run, outer: str, tmp_path: Path) -> None:
    options = ["--learn-inner-lr", "--estimator", "fomaml", "--adapt-steps", "2", "--outer", outer, "--name", "tiny"]
    found = run("navigation", "--learner", "maml", *TINY, *options)
    assert found.code == 0, found.err + found.out
    learner = json.loads((tmp_path / "runs" / "tiny" / "config.json").read_text())["learner"]
    assert learner["outer"]["class"].lower() == outer


@pytest.mark.parametrize(("learner", "preset"), CORNERS)
def test_every_estimator_is_one_preset_away(run: Run, learner: str, preset: str, tmp_path: Path) -> None:
    found = run("navigation", "--learner", learner, "--preset", preset, *TINY, *OWN.get(learner, []), "--name", "tiny")
    assert found.code == 0, found.err + found.out
    recorded = json.loads((tmp_path / "runs" / "tiny" / "config.json").read_text())["learner"]
    assert recorded["adapt_steps"] == 3
    if preset in ("fomaml", "emaml", "dice", "lvc"):
        assert recorded["estimator"] == preset
    if (learner, preset) == ("maml", "corner"):
        assert recorded["estimator"] == "maml"


@pytest.mark.usefixtures("no_training")
def test_a_learning_rate_that_would_end_at_zero_too_early_is_refused(run: Run) -> None:
    found = run("bandit", "--learner", "rl2", "--anneal-updates", "5", "--iterations", "6")
    assert found.code == 2
    assert "iterations is 6: use at most anneal_updates (5)" in found.err


BAD_INPUT = [
    (["--preset", "nope"], "preset is 'nope': half_cheetah_dir with maml has tuned, "),
    (["--task-preset", "nope"], "preset is 'nope': half_cheetah_dir has maml2017, promp, v5"),
    (["--num-tasks", "-3"], "num_tasks is -3: use at least 1"),
    (["--num-tasks", "many"], "--num-tasks: invalid literal for int() with base 10: 'many'"),
    (["--num-tasks"], "Missing value for argument '--num-tasks'"),
    (["--outer", "adam"], "outer is 'adam': use one of trpo, ppo, gradient"),
    (["--outer"], "--outer has no value"),
    (["--estimator", "nope"], "invalid choice 'nope' for argument '--estimator'"),
    (["another"], "Unrecognized options: another"),
    (["--horizon", "0"], "horizon is 0"),
    (["--episodes", "30"], "episodes is 30: use a multiple of num_envs (20)"),
    (["--inner-lr", "-1"], "inner_lr is -1"),
    (["--hidden-sizes", "0"], "hidden_sizes is (0,)"),
    (["--device", "cuda"], "device is 'cuda': this machine has no CUDA device"),
    (["--device", "toaster"], "device is 'toaster'"),
    (["--physics", "bullet"], "physics is 'bullet': use one of auto, cpu"),
    (["--name", "../escape"], "name is '../escape'"),
    (["--resume", "nowhere"], "nowhere is no run folder"),
    (["--runs", "/proc/forbidden"], "cannot write to /proc/forbidden"),
]


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(("options", "sentence"), BAD_INPUT)
def test_bad_input_ends_in_one_sentence_and_leaves_nothing_behind(
    run: Run, options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = run("half_cheetah_dir", "--learner", "maml", *options)
    assert found.code == 2
    assert sentence in found.err
    assert found.err.startswith("error: ")
    assert len(found.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_training")
def test_a_run_folder_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("keep")
    found = run("navigation", *TINY, "--runs", str(tmp_path), "--name", "taken")
    assert found.code == 2
    assert "exists: choose another --name, or continue it with --resume" in found.err
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["precious"]
