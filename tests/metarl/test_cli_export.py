"""metarl export: adapts to a task in simulation, and writes what a trial would."""

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from test_agent import GRADIENT, MEMORY

import metarl
from metarl.cli.verbs import run
from metarl.envs.small.navigation import Navigation
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.session import execute
from metarl.types import remembers

pytestmark = pytest.mark.usefixtures("one_thread")
TASKS = Navigation(horizon=5)


@pytest.fixture(scope="module", params=["maml", "gru"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    learner = (GRADIENT | MEMORY)[request.param]
    episodes = 3 if remembers(learner) else 4
    experiment = Experiment(TASKS, learner, num_tasks=2, num_envs=1, episodes=episodes, iterations=1, eval_interval=0)
    folder = create_run(experiment, tmp_path_factory.mktemp("runs"), request.param)
    assert execute(experiment, folder) == 0
    return folder


def described(file: Path) -> dict[str, object]:
    with safetensors.safe_open(file, "pt") as opened:
        return dict(json.loads(opened.metadata()["metarl"]))


def test_it_adapts_as_in_training(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.safetensors"
    assert run(["export", str(trained), "--out", str(file)], None) == 0
    said = described(file)
    inner_steps, episodes = (2, 8) if trained.name == "maml" else (0, 2)
    assert said["adaptation"] == {"inner_steps": inner_steps, "episodes": episodes, "steps": 5 * episodes}
    assert said["source"] == metarl.load(trained).source
    assert said["source"]["run"] == trained.name  # type: ignore[index]
    out = capsys.readouterr().out
    assert f"wrote {file}: navigation, go to (" in out
    assert "the first returned" in out


def test_a_policy_leaves_as_it_was_trained(trained: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.safetensors"
    assert run(["export", str(trained), "--out", str(file), "--adapt-episodes", "0"], None) == 0
    state = metarl.load(trained).state
    parts = dict(state.meta) | {f"params.{name}": value for name, value in state.meta.items()}
    parts |= {f"reward_stats.{name}": value for name, value in getattr(state, "reward_stats", {}).items()}
    found = safetensors.torch.load_file(file)
    assert found
    for name, value in found.items():
        assert torch.equal(value.reshape(parts[name].shape), parts[name])


def test_a_task_of_ones_own_changes_what_is_learned(trained: Path, tmp_path: Path) -> None:
    found = []
    for goal in (["0.5", "0.5"], ["-0.5", "0.1"]):
        file = tmp_path / "policy.safetensors"
        assert run(["export", str(trained), "--out", str(file), "--parameter", *goal], None) == 0
        found.append((safetensors.torch.load_file(file), described(file)["first"]))
    (one, before), (other, after) = found
    assert before != after if trained.name == "gru" else any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("trained", ["maml"], indirect=True)
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--task", "20"], "task is 20: use 0 to 19"),
        (["--parameter", "1"], "parameter has 1 numbers: navigation has 2"),
        (["--adapt-episodes", "-1"], "adapt_episodes is -1"),
        (["--out", "policy.pt"], "path is 'policy.pt'"),
        (["--out", "a.pt2", "--benchmark"], "benchmark is of ONNX files"),
    ],
)
def test_mistakes_are_named(
    options: list[str], sentence: str, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_request:
        run(["export", str(trained), *options], None)
    assert exit_request.value.code == 2
    assert sentence in capsys.readouterr().err
