"""A task that a user defines in one file: from training to evaluation, video, Gymnasium and a snapshot."""

import io
import json
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from metarl import cli
from metarl.envs import api
from metarl.envs.api import EnvSpec
from metarl.envs.camera import find_backend
from metarl.envs.fields import BadField
from metarl.envs.gymnasium_env import register_tasks
from metarl.envs.mujoco_task import MujocoTask
from metarl.envs.registry import TASKS, TaskDistribution
from metarl.runs.code import run_code
from metarl.runs.folder import load_experiment

pytestmark = pytest.mark.usefixtures("one_thread")
FILE = Path(__file__).parents[2] / "experiments" / "own_task.py"
TINY = ["--num-tasks", "2", "--num-envs", "2", "--episodes", "2", "--horizon", "10", "--iterations", "2"]
TINY += ["--eval-interval", "1", "--eval-tasks", "2"]


@contextmanager
def a_library_alone() -> Iterator[None]:
    """Inside, the task is not known at first; after it, everything is known that was before (by other tests, too)."""
    known = [(registry, dict(registry)) for registry in (TASKS, gymnasium.registry)]
    TASKS.pop("pointing_arm", None)
    yield
    for registry, before in known:
        registry.clear()
        registry.update(before)


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    with a_library_alone():
        yield


@pytest.fixture
def task() -> TaskDistribution:
    run_code(FILE)
    return TASKS["pointing_arm"]()


def call(*arguments: str) -> None:
    """The script, as its user starts it; one that fails exits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(FILE), *arguments])
        runpy.run_path(str(FILE), run_name="__main__")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run, seen from a process that does not know its task."""
    folder = tmp_path_factory.mktemp("runs")
    with a_library_alone():
        call(*TINY, "--runs", str(folder), "--name", "arm")
    return folder / "arm"


def test_five_functions_and_its_dimensions_are_all_that_it_says(task: TaskDistribution) -> None:
    said = {name for name, value in vars(type(task)).items() if callable(value) and not name.startswith("__")}
    assert said == {"sample", "model", "reset_state", "observe", "reward"}
    assert isinstance(type(task).spec, property)
    assert MujocoTask.__abstractmethods__ == {*said, "spec"}


def test_its_reward_is_the_distance_to_a_goal_that_no_observation_shows(task: TaskDistribution) -> None:
    env = task.make(2, 3, seed=0)
    env.set_tasks(torch.tensor([0.5, -1.0]))
    first = env.reset()
    assert first.shape == (2, 3, 2)
    step = env.step(torch.zeros(2, 3, 1))
    assert torch.allclose(step.reward, -(step.next_obs[..., 0] - torch.tensor([[0.5], [-1.0]])).abs())
    other = task.make(2, 3, seed=0)
    other.set_tasks(torch.tensor([-1.0, 0.3]))
    assert torch.equal(other.reset(), first)
    assert torch.equal(other.step(torch.zeros(2, 3, 1)).next_obs, step.next_obs)


def test_a_torque_turns_the_arm_towards_positive_angles(task: TaskDistribution) -> None:
    env = task.make(1, 2, seed=0)
    env.set_tasks(torch.zeros(1))
    before = env.reset()
    for _ in range(10):
        step = env.step(torch.tensor([[[1.0], [-1.0]]]))
    assert step.obs[0, 0, 0] > before[0, 0, 0] + 0.1
    assert step.obs[0, 1, 0] < before[0, 1, 0] - 0.1


def test_its_snapshots_repeat_every_bit(task: TaskDistribution) -> None:
    env, other = task.make(2, 2, seed=0), task.make(2, 2, seed=1)
    env.set_tasks(torch.tensor([0.5, -1.0]))
    env.reset()
    for _ in range(45):  # near the time limit of 50
        env.step(torch.ones(2, 2, 1))
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(10):
        first, second = env.step(torch.ones(2, 2, 1)), other.step(torch.ones(2, 2, 1))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_gymnasium_knows_it_once_it_is_registered(task: TaskDistribution) -> None:
    register_tasks()
    register_tasks()  # those that are known stay as they are
    check_env(gymnasium.make("metarl/PointingArm-v0", task=0.5).unwrapped, skip_render_check=True)
    assert gymnasium.make_vec("metarl/PointingArm-v0", num_envs=3).reset(seed=0)[0].shape == (3, 2)


def test_its_runs_resume_and_say_how_to_go_on(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("--resume", str(run), "--iterations", "3")
    assert f"metarl evaluate {run} --code {FILE}" in capsys.readouterr().out
    assert json.loads((run / "config.json").read_text())["iterations"] == 3, "what a further resume goes on with"
    assert json.loads((run / "config.json").read_text())["task"]["class"] == "PointingArm"
    assert len((run / "progress.csv").read_text().splitlines()) == 1 + 3


def test_its_runs_are_evaluated_when_the_file_is_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--tasks", "2", "--steps", "1", "--pretrain-iterations", "0"]
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(run), *options])
    message = capsys.readouterr().err
    assert "its task, PointingArm, is defined nowhere here: name the file that defines it with --code" in message
    assert len(message.splitlines()) == 1
    cli.main(["evaluate", str(run), *options, "--code", str(FILE)])
    assert (run / "evaluation.json").exists()
    assert load_experiment(run).task == TASKS["pointing_arm"](horizon=10)


def test_its_runs_are_drawn(run: Path, tmp_path: Path) -> None:
    cli.main(["plot", str(run), "--out", str(tmp_path / "curves.png"), "--code", str(FILE)])
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_its_runs_are_filmed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if find_backend() is None:
        pytest.skip("no OpenGL on this machine")
    cli.main(["video", str(run), "--code", str(FILE)])
    assert sorted(path.suffix for path in (run / "videos").iterdir()) == [".gif", ".mp4"]


@pytest.mark.parametrize("name", ["missing.py", "folder.py", "text.txt"])
def test_code_that_is_no_python_file_is_refused(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text("no code")
    with pytest.raises(SystemExit):
        cli.main(["list", "--code", str(tmp_path / name)])
    assert f"code is {tmp_path / name}: there is no such Python file" in capsys.readouterr().err


def test_the_list_shows_every_task_and_preset_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["list", "--code", str(FILE)])
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines]
    assert ["pointing_arm", "default", "1", "2", "1", "50", "no", "-"] in rows
    assert ["ml1", "v2", "7", "39", "4", "500", "no", "yes"] in rows
    assert ["k50", "50", "1", "of", "50", "1", "no", "-"] in rows  # a bandit's
    for name, tasks in TASKS.items():
        first, *others = tasks.presets
        assert any(row[:2] == [name, first] for row in rows)
        assert all(any(row[:1] == [preset] for row in rows) for preset in others)
    assert "…" not in "".join(lines)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        ({"observe": lambda self, physics: physics.bind("qpos")}, r"observe of wrong gives \(6, 1\): .* is \(6, 2\)"),
        ({"spec": EnvSpec(2, 3, 50, terminates=False, has_success=False)}, "action_dim of wrong is 3: .* 1 actuators"),
        ({"reward": lambda self, *_: torch.zeros(())}, r"reward of wrong gives \(\): \[world\] is \(6,\)"),
        ({"reward": lambda self, *_: torch.zeros(6, 1)}, r"reward of wrong gives \(6, 1\)"),
        ({"name": "navigation"}, "name is 'navigation': Navigation has it, give Wrong another"),
    ],
)
def test_a_mistake_is_named(
    task: TaskDistribution, mistake: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "TASKS", dict(api.TASKS))

    def step() -> None:
        env = type("Wrong", (type(task),), {"name": "wrong"} | mistake)().make(2, 3, seed=0)
        env.set_tasks(torch.zeros(2))
        env.reset()
        env.step(torch.zeros(2, 3, 1))

    with pytest.raises(BadField, match=said):
        step()
