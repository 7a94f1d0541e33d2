"""Every script runs, explains itself, and refuses what cannot work before it does anything."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from metarl.algorithms.maml import MAML
from metarl.envs.fields import BadField
from metarl.envs.registry import find_preset

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.name for path in (ROOT / "experiments").glob("*.py"))
TINY = ["--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "10", "--iterations", "2"]
TINY += ["--eval-interval", "1", "--eval-tasks", "2", "--num-threads", "1"]
LEARNERS = ["promp", "maml", "fomaml", "emaml", "dice", "lvc", "meta_sgd", "cavia", "reptile", "es_maml"]
TRIALS = ["--episodes", "4"]  # for RL²: trials of 2 episodes


class Finished(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Finished]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs a script as its user would, in ``tmp_path``, but in this process: starting one costs seconds."""
    monkeypatch.chdir(tmp_path)

    def run_script(script: str, *options: str) -> Finished:
        monkeypatch.setattr(sys, "argv", [script, *options])
        with pytest.raises(SystemExit) as exit_request:
            runpy.run_path(str(ROOT / "experiments" / script), run_name="__main__")
        code = exit_request.value.code
        return Finished(code if isinstance(code, int) else 0, *capsys.readouterr())

    return run_script


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_explains_every_option(run: Run, script: str) -> None:
    found = run(script, "--help")
    assert found.code == 0, found.err
    own = ("--memory-size", "--gae-lambda") if script.startswith("rl2") else ("--inner-lr", "--hidden-sizes")
    for option in ("--preset", "--num-tasks", "--resume", "--device", *own):
        assert option in found.out


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_tiny_run_leaves_a_complete_record(run: Run, script: str, tmp_path: Path) -> None:
    remembers = script.startswith("rl2")
    found = run(script, *TINY, *(TRIALS if remembers else []), "--name", "tiny")
    assert found.code == 0, found.err + found.out
    folder = tmp_path / "runs" / "tiny"
    versions = json.loads((folder / "versions.json").read_text())
    assert {"torch", "mujoco", "gymnasium", "python", "git_commit"} <= set(versions)
    assert json.loads((folder / "config.json").read_text())["num_tasks"] == 2
    events = EventAccumulator(str(folder)).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"meta_train/return_pre", "meta_train/return_post", "meta_train/adaptation_gain"} <= tags
    if remembers:
        assert {"meta_test/return_trial", "meta_test/return_episode_first", "meta_test/return_episode_last"} <= tags
    else:
        assert {"meta_test/return_step_0", "meta_test/return_step_1"} <= tags
    assert {"train/kl", "train/meta_gradient_norm"} <= tags
    assert {"time/env_steps_per_second", "time/sampling_seconds", "time/optimization_seconds"} <= tags
    # 2 tasks x 2 worlds x 10 steps, before and after each inner step or twice a trial; fewer where episodes end early
    steps = [event.step for event in events.Scalars("meta_train/return_pre")]
    assert 0 < steps[0] < steps[1] <= 2 * 160


@pytest.mark.parametrize("outer", ["trpo", "ppo", "gradient"])
def test_every_outer_step_and_learned_first_order_rates_train(run: Run, outer: str) -> None:
    options = [
        *TINY,
        "--learn-inner-lr",
        "--estimator",
        "fomaml",
        "--adapt-steps",
        "2",
        f"experiment.learner:{outer}",
    ]
    found = run("maml_navigation.py", *options)
    assert found.code == 0, found.err + found.out


@pytest.mark.parametrize("estimator", LEARNERS)
def test_every_estimator_is_one_preset_away(run: Run, estimator: str, tmp_path: Path) -> None:
    options = ["--pairs", "1"] if estimator == "es_maml" else []
    found = run("estimators_navigation.py", "--preset", estimator, *TINY, *options, "--name", "tiny")
    assert found.code == 0, found.err + found.out
    learner = json.loads((tmp_path / "runs" / "tiny" / "config.json").read_text())["learner"]
    assert learner["adapt_steps"] == 3
    if learner["class"] == "MAML" and estimator in ("maml", "fomaml", "emaml", "dice", "lvc"):
        assert learner["estimator"] == estimator


def test_a_learning_rate_that_would_end_at_zero_too_early_is_refused(run: Run) -> None:
    found = run("rl2_bandit.py", "--iterations", "1000")
    assert found.code == 2
    assert "iterations is 1000: use at most anneal_updates (" in found.err


def test_maml_refuses_discrete_actions() -> None:
    with pytest.raises(BadField, match="discrete actions"):
        MAML().init(find_preset("bandit").spec, torch.Generator())


BAD_INPUT = [
    (["--preset", "nope"], "preset is 'nope': use one of tuned"),
    (["--num-tasks", "-3"], "num_tasks is -3: use at least 1"),
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


@pytest.mark.parametrize(("options", "sentence"), BAD_INPUT)
def test_bad_input_ends_in_one_sentence_and_leaves_nothing_behind(
    run: Run, options: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = run("maml_half_cheetah_dir.py", *options)
    assert found.code == 2
    assert sentence in found.err
    assert len(found.err.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_is_never_overwritten(run: Run, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious").write_text("keep")
    found = run("maml_navigation.py", *TINY, "--runs", str(tmp_path), "--name", "taken")
    assert found.code == 2
    assert "exists: choose another --name, or continue it with --resume" in found.err
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["precious"]
