"""Faults seen from outside, each by its number, and their siblings: commits, checkpoints, schedules, links."""

import io
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from run_checks import TINY, edit, newest, run_quietly

from metarl import presets
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.algorithms.rl2 import RL2
from metarl.envs.small.navigation import Navigation
from metarl.runs import checkpoint
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.files import read_file, write_whole
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.session import execute
from metarl.runs.versions import git_commit, versions
from metarl.train import scheduled

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[3]


# --- 6: whose commit


def git(directory: Path, *arguments: str) -> None:
    options = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", *options, *arguments], cwd=directory, check=True, capture_output=True)


def test_fault_6_the_commit_is_of_a_repository_that_holds_the_source(tmp_path: Path) -> None:
    inside = tmp_path / ".venv" / "metarl" / "versions.py"
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    assert git_commit(inside) is None  # no repository
    git(tmp_path, "init")
    (tmp_path / "other.py").write_text("")
    git(tmp_path, "add", "other.py")
    git(tmp_path, "commit", "-m", "theirs")
    assert git_commit(inside) is None  # somebody else's
    git(tmp_path, "add", "-f", str(inside))
    assert git_commit(inside) is None  # not committed yet
    git(tmp_path, "commit", "-m", "ours")
    assert len(git_commit(inside) or "") == 40
    inside.write_text("changed")
    assert (git_commit(inside) or "").endswith("+changes")


def test_fault_6_without_git_and_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("metarl.runs.versions.DISTRIBUTION", "nothing-of-this-name")
    found = versions()
    assert found["git_commit"] is None
    assert found["metarl"] is None
    assert found["torch"]


# --- 7: a checkpoint knows its experiment


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(TINY, seed=1), "seed is 1"),
        (replace(TINY, learner=MAML(outer=PPO(), inner_lr=0.3)), "learner.inner_lr is 0.3"),
        (replace(TINY, learner=MAML(outer=PPO(learning_rate=0.5))), "learner.outer.learning_rate is 0.5"),
        (replace(TINY, learner=MAML()), "learner.outer.class is 'TRPO'"),
        (replace(TINY, num_envs=1), "num_envs is 1"),
        (replace(TINY, task=Navigation(horizon=6)), "task.horizon is 6"),
    ],
)
def test_fault_7_a_foreign_checkpoint_is_refused_by_the_field(
    other: Experiment, named: str, run: Path, tmp_path: Path
) -> None:
    foreign = create_run(other, tmp_path, "foreign")
    run_quietly(other, foreign)
    newest(run).write_bytes(newest(foreign).read_bytes())
    with pytest.raises(CheckpointError, match="of another experiment") as error:
        execute(replace(TINY, iterations=3), run, console=Console(file=io.StringIO()))
    assert named in str(error.value)


def moment(content: dict[str, Any]) -> dict[str, Any]:
    return content["learner"]["optimizer"]["state"][0]  # type: ignore[no-any-return]


WRONG: dict[str, Callable[[dict[str, Any]], object]] = {
    "iteration -5": lambda c: c.update(iteration=-5),
    "iteration 2.0": lambda c: c.update(iteration=2.0),
    "iteration True": lambda c: c.update(iteration=True),
    "steps NaN": lambda c: c.update(env_steps=float("nan")),
    "steps -1": lambda c: c.update(env_steps=-1),
    "steps 2^70": lambda c: c.update(env_steps=2**70),
    "no steps": lambda c: c.pop("env_steps"),
    "no learner": lambda c: c.pop("learner"),
    "learner a list": lambda c: c.update(learner=[1, 2]),
    "no env": lambda c: c.pop("env"),
    "env a number": lambda c: c.update(env=3),
    "other field": lambda c: c["learner"].update(other=1),
    "parameter of another type": lambda c: c["learner"]["meta"].update(
        {k: v.double().long() for k, v in c["learner"]["meta"].items()}
    ),
    "parameter NaN": lambda c: next(iter(c["learner"]["meta"].values())).fill_(float("nan")),
    "parameter of another shape": lambda c: c["learner"]["meta"].update(
        {k: v[..., :1] for k, v in c["learner"]["meta"].items()}
    ),
    "moments of another shape": lambda c: moment(c).update(exp_avg=torch.zeros(1, 1)),
    "second moments of another shape": lambda c: moment(c).update(exp_avg_sq=torch.zeros(1, 1)),
    "moments NaN": lambda c: moment(c)["exp_avg"].fill_(float("nan")),
    "moments lacking": lambda c: c["learner"]["optimizer"]["state"].pop(0),
    "optimizer a string": lambda c: c["learner"].update(optimizer="adam"),
    "generator of nothing": lambda c: c.update(tasks=torch.zeros(3, dtype=torch.uint8)),
    "generator of floats": lambda c: c.update(actions=torch.zeros(5056)),
    "worlds of another number": lambda c: c["env"].update(clock=torch.zeros(99, dtype=torch.int64)),
    "worlds of another type": lambda c: c["env"].update(clock=c["env"]["clock"].float()),
    "experiment a number": lambda c: c.update(experiment=3),
    "experiment no JSON": lambda c: c.update(experiment="{"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_fault_7_contents_with_a_right_digest_and_wrong_fields(kind: str, run: Path) -> None:
    for path in (run / checkpoint.DIRECTORY).iterdir():
        if path != newest(run):
            path.unlink()
    edit(run, WRONG[kind])
    with pytest.raises(CheckpointError) as error:
        execute(replace(TINY, iterations=3), run, console=Console(file=io.StringIO()))
    assert "\n" not in str(error.value)


def test_fault_7_an_old_checkpoint_that_does_not_know_goes_on(run: Path) -> None:
    edit(run, lambda content: content.pop("experiment"))
    assert "continuing" in run_quietly(replace(TINY, iterations=3), run)


# --- 9: schedules follow the run


def test_fault_9_the_schedule_follows_the_run(tmp_path: Path) -> None:
    learner = presets.find("bandit", "rl2")["n10_k5"].learner
    assert isinstance(learner, RL2)
    assert learner.anneal_updates is None
    assert scheduled(learner, 20) == replace(learner, anneal_updates=20)
    for number in (0, 7):  # as in the configs of older runs
        told = replace(learner, anneal_updates=number)
        assert scheduled(told, 20) is told


def test_fault_9_a_short_run_ends_at_the_lowest_rate(tmp_path: Path) -> None:
    start = presets.find("bandit", "rl2")["n10_k5"]
    small = replace(start, num_tasks=4, episodes=4, iterations=4, eval_interval=0, num_threads=1)
    run = create_run(small, tmp_path, "run")
    run_quietly(small, run)
    header, *rows = (line.split(",") for line in (run / "progress.csv").read_text().splitlines())
    rates = [float(row[header.index("train/learning_rate")]) for row in rows]
    assert rates == pytest.approx([0.01, 0.0075, 0.005, 0.0025])


# --- 11, 23: what was refused is set aside


def test_fault_11_good_checkpoints_are_never_pruned_for_refused_ones(run: Path) -> None:
    for number in (13, 14):
        (run / checkpoint.DIRECTORY / f"iteration_{number:08d}.ckpt").write_bytes(newest(run).read_bytes()[:-50])
    said = run_quietly(replace(TINY, iterations=3), run)
    assert "iteration_00000014.ckpt.refused" in said
    assert {path.name for path in (run / checkpoint.DIRECTORY).iterdir()} == {
        *(f"iteration_0000000{number}.ckpt" for number in (2, 3)),
        *(f"iteration_000000{number}.ckpt.refused" for number in (13, 14)),
    }


def test_fault_11_also_where_they_cannot_be_renamed(tmp_path: Path) -> None:
    for number in (20, 30):
        (tmp_path / f"iteration_{number:08d}.ckpt").write_bytes(b"")
    for number in (10, 11, 12):
        checkpoint.save_iteration(tmp_path, number, {"iteration": number})
    assert checkpoint.load_newest(tmp_path, lambda line: None)["iteration"] == 12
    assert (tmp_path / "iteration_00000011.ckpt").exists()


def test_fault_11_a_renamed_checkpoint_is_refused(run: Path) -> None:
    newest(run).rename(run / checkpoint.DIRECTORY / "iteration_00000009.ckpt")
    assert "iteration_00000009.ckpt is of iteration 2" in run_quietly(TINY, run)


def test_fault_23_pipes_and_folders_are_no_checkpoints(run: Path) -> None:
    os.mkfifo(run / checkpoint.DIRECTORY / "iteration_00000008.ckpt")
    (run / checkpoint.DIRECTORY / "iteration_00000007.ckpt").mkdir()
    said = run_quietly(replace(TINY, iterations=8), run)
    assert "no regular file" in said
    assert checkpoint.load_newest(run / checkpoint.DIRECTORY, pytest.fail)["iteration"] == 8


@pytest.mark.parametrize("name", ["config.json", "progress.csv", "run.lock"])
def test_fault_23_pipes_elsewhere(name: str, run: Path) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    try:
        said = run_quietly(load_experiment(run), run)
    except ValueError as error:
        said = str(error)
    assert name in said
    assert "no regular file" in said


# --- 12: links


LINKS = ["config.json", "config.tmp", "progress.csv", "progress.tmp", "run.lock", "versions.json", "checkpoints"]
LINKS += ["checkpoints/iteration_00000002.ckpt", "checkpoints/iteration_00000003.tmp", "videos", "evaluation.json"]


@pytest.mark.parametrize("name", LINKS)
def test_fault_12_a_run_folder_holds_no_links(name: str, run: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    if (run / name).is_dir() or name == "videos":
        outside.mkdir()
        (outside / "precious").write_text("untouched")
    else:
        outside.write_text("untouched")
    if (run / name).exists():
        (run / name).rename(tmp_path / "moved")
    (run / name).symlink_to(outside)
    for work in (lambda: load_experiment(run), lambda: execute(replace(TINY, iterations=3), run)):
        with pytest.raises(ValueError, match="is a link") as error:
            work()
        assert name in str(error.value)
    kept = outside / "precious" if outside.is_dir() else outside
    assert kept.read_text() == "untouched"


def test_fault_12_what_is_written_replaces_links(tmp_path: Path) -> None:
    """Also those that were put there after the folder was looked at."""
    (tmp_path / "outside").write_text("untouched")
    for name in ("a.json", "a.tmp"):
        (tmp_path / name).symlink_to("outside")
    write_whole(tmp_path / "a.json", b"new")
    assert (tmp_path / "outside").read_text() == "untouched"
    assert not (tmp_path / "a.json").is_symlink()
    (tmp_path / "b").symlink_to("a.json")
    with pytest.raises(OSError, match="link"):
        read_file(tmp_path / "b", 100)
    with pytest.raises(OSError, match="more than 2 bytes"):
        read_file(tmp_path / "a.json", 2)
