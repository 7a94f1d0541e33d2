"""Options of ``metarl train``: flat, in any order, the last one wins everywhere; a resumed run is the one named."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metarl import MAML, RL2, Experiment, ProMP, cli, presets
from metarl.algorithms.outer import PPO, TRPO
from metarl.cli import train
from metarl.cli.parse import value_of, without
from metarl.envs.registry import TASKS, find_preset
from metarl.envs.small.navigation import Navigation
from metarl.runs.folder import create_run, load_experiment

TINY = ["--num-tasks", "1", "--num-envs", "1", "--episodes", "1", "--horizon", "5", "--iterations", "1"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Experiment]:
    """The experiments that would have been trained; their folders are made."""
    found: list[Experiment] = []
    monkeypatch.setattr(train, "execute", lambda experiment, run: found.append(experiment) or 0)
    monkeypatch.chdir(tmp_path)
    return found


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence that ``metarl train`` ends in."""
    with pytest.raises(SystemExit) as exit_request:
        cli.main(["train", *arguments])
    assert exit_request.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


# --- order


WORDS = [["navigation"], ["--learner", "maml"], ["--outer", "ppo"], ["--epochs", "10"], ["--num-tasks", "3"]]
SWITCHES = [["--learn-inner-lr"], ["--hidden-sizes", "8", "9"]]


@pytest.mark.parametrize("first", range(len(WORDS + SWITCHES)))
def test_options_stand_in_any_order(first: int, started: list[Experiment]) -> None:
    words = WORDS + SWITCHES
    turned = words[first:] + words[:first]
    for number, order in enumerate((turned, turned[::-1])):
        cli.main(["train", *itertools.chain(*order), "--name", f"run{number}"])
    for experiment in started:
        base = presets.make("navigation", "maml")
        policy = replace(base.learner.policy, hidden_sizes=(8, 9))
        learner = replace(base.learner, outer=PPO(epochs=10), learn_inner_lr=True, policy=policy)
        assert experiment == replace(base, learner=learner, num_tasks=3)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-kl", "0.02", "--inner-lr", "0.3", "--learn-inner-lr"],
        ["--max-kl=0.02", "--inner-lr=0.3", "--learn-inner-lr"],
        ["--max_kl", "0.02", "--inner_lr", "0.3", "--learn_inner_lr"],
        ["--max_kl=0.02", "--inner_lr=0.3", "--learn-inner-lr"],
    ],
)
def test_an_option_is_written_in_four_ways(arguments: list[str], started: list[Experiment]) -> None:
    cli.main(["train", *arguments, "half_cheetah_dir", "--learner=maml"])
    (found,) = started
    assert isinstance(found.learner, MAML)
    assert isinstance(found.learner.outer, TRPO)
    assert (found.learner.outer.max_kl, found.learner.inner_lr, found.learner.learn_inner_lr) == (0.02, 0.3, True)
    assert found.learner.outer.curvature_samples == 16_000  # the preset's


def test_a_value_that_is_the_name_of_a_task_is_a_value(started: list[Experiment]) -> None:
    cli.main(["train", "--name", "bandit", "--runs", "ml1", "navigation", "--learner", "promp"])
    (found,) = started
    assert (found.task.name, type(found.learner)) == ("navigation", ProMP)
    assert load_experiment(Path("ml1/bandit")) == found


def test_negative_numbers_are_values(started: list[Experiment], capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "navigation", "--inner-lr", "-1") == "inner_lr is -1.0: use more than 0"
    assert refusal(capsys, "--inner-lr", "-.5", "navigation") == "inner_lr is -0.5: use more than 0"


def test_parts_of_a_learner_are_picked_by_name(started: list[Experiment]) -> None:
    for name in ("linear-feature-baseline", "none"):
        cli.main(["train", "bandit", "--baseline", name, "--name", name])
    first, second = (experiment.learner for experiment in started)
    assert isinstance(first, RL2)
    assert isinstance(second, RL2)
    assert type(first.baseline).__name__ == "LinearFeatureBaseline"
    assert second.baseline is None


def test_the_default_learner_is_the_one_with_presets(started: list[Experiment]) -> None:
    for task in ("walker2d_rand_params", "bandit", "humanoid_dir"):
        cli.main(["train", task, "--name", task])
    assert [type(experiment.learner) for experiment in started] == [ProMP, RL2, MAML]
    assert [experiment.preset for experiment in started] == ["tuned", "n10_k5", "default"]


def test_a_task_preset_takes_the_place_of_the_presets_own(started: list[Experiment]) -> None:
    cli.main(["train", "half_cheetah_dir", "--preset", "tuned", "--task-preset", "v5", "--horizon", "7"])
    (found,) = started
    assert found.task == replace(find_preset("half_cheetah_dir", "v5"), horizon=7)
    assert replace(found, task=presets.make("half_cheetah_dir", "maml").task) == presets.make(
        "half_cheetah_dir", "maml", "tuned"
    )


# --- one option twice


@pytest.mark.parametrize("spelling", [("--preset", "corner"), ("--preset=corner",)])
def test_fault_3_the_last_preset_is_trained_and_recorded(spelling: tuple[str, ...], started: list[Experiment]) -> None:
    cli.main(["train", "navigation", "--preset", "maml2017", "--seed", "3", *spelling, "--name", "run"])
    (found,) = started
    expected = replace(presets.make("navigation", "maml", "corner"), seed=3)
    assert found == expected
    assert load_experiment(Path("runs/run")) == expected
    assert json.loads(Path("runs/run/config.json").read_text())["preset"] == "corner"


def test_fault_3_the_last_learner_task_preset_part_and_field_win(started: list[Experiment]) -> None:
    twice = ["--learner", "rl2", "--task-preset", "maml2017", "--outer", "trpo", "--clip", "0.1", "--num_envs", "3"]
    last = ["--learner=maml", "--task-preset", "corner", "--outer=ppo", "--clip", "0.2", "--num-envs=5"]
    cli.main(["train", "navigation", *twice, *last])
    (found,) = started
    assert isinstance(found.learner, MAML)
    assert found.learner.outer == PPO(clip=0.2)
    assert found.task == Navigation.presets["corner"]
    assert found.num_envs == 5


def test_fault_3_the_last_name_and_folder_win(started: list[Experiment]) -> None:
    cli.main(["train", "navigation", "--name", "a", "--runs", "x", "--name=b", "--runs", "y"])
    assert [str(path) for path in Path().glob("*/*")] == ["y/b"]


def test_the_last_run_to_resume_and_the_last_device_win(started: list[Experiment]) -> None:
    first, second = (replace(presets.make("navigation", "maml"), seed=seed) for seed in (1, 2))
    create_run(first, Path("runs"), "first")
    create_run(second, Path("runs"), "second")
    cli.main(["train", "--resume", "runs/first", "--device", "cuda", "--resume=runs/second", "--device", "cpu"])
    assert started == [second]


TASK_FILE = """
from dataclasses import dataclass
from metarl.envs.small.navigation import Navigation
{imports}
@dataclass(frozen=True)
class {name}(Navigation):
    name = "{task}"
    {field}
"""


@pytest.fixture
def own_files(tmp_path: Path) -> Iterator[Any]:
    """Writes a file that defines a task; what it defines is forgotten afterwards."""
    before = dict(TASKS)

    def write(task: str, *, field: str = "", imports: str = "") -> str:
        path = tmp_path / f"{task}.py"
        name = task.title().replace("_", "")
        path.write_text(TASK_FILE.format(name=name, task=task, field=field, imports=imports))
        return str(path)

    yield write
    TASKS.clear()
    TASKS.update(before)


def test_every_file_of_code_is_run(
    own_files: Any, started: list[Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--code", own_files("own_first"), f"--code={own_files('own_second')}"]
    for task in ("own_first", "own_second"):
        cli.main(["train", task, *files])
        assert started[-1].task.name == task
    assert f"--code {files[1]} {files[2].replace('=', ' ')}" in capsys.readouterr().out
    said = refusal(capsys, "own_third", *files)
    assert said.startswith("task is 'own_third': ")
    assert said.endswith("or name the file that defines it with --code")
    assert refusal(capsys, "own_first", "--code") == "--code has no value"


def test_value_of_takes_the_last_and_without_takes_all() -> None:
    arguments = ["--a", "1", "--b=2", "--a=3", "--a_b", "4", "c"]
    assert value_of("--a", arguments) == "3"
    assert value_of("--a-b", arguments) == "4"
    assert value_of("--c", arguments) is None
    assert without("--a", arguments) == ["--b=2", "--a_b", "4", "c"]


# --- files of one's own


def test_a_files_neighbours_can_be_imported(own_files: Any, started: list[Experiment], tmp_path: Path) -> None:
    (tmp_path / "a_neighbour_of_its_task.py").write_text("STEP = 0.25\n")
    file = own_files(
        "own_neighbour", imports="from a_neighbour_of_its_task import STEP", field="max_step: float = STEP"
    )
    cli.main(["train", "own_neighbour", "--code", file, *TINY])
    assert started[0].task.max_step == 0.25  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("field", "owner"),
    [
        ("seed", "the experiment"),
        ("preset", "the experiment"),
        ("resume", "the experiment"),
        ("num_envs", "the experiment"),
        ("inner_lr", "the learner"),
        ("outer", "the learner"),
    ],
)
def test_a_field_that_an_option_has_too_is_refused(
    field: str, owner: str, own_files: Any, started: list[Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    task = f"own_{field}"
    file = own_files(task, field=f"{field}: float = 1.0")
    said = refusal(capsys, task, "--code", file, "--learner", "maml")
    name = task.title().replace("_", "")
    assert said == f"{name} has the field --{field.replace('_', '-')}, which {owner} has, too: rename it"
    assert started == []


# --- resuming


@pytest.fixture
def run(started: list[Experiment]) -> Path:
    return create_run(presets.make("navigation", "maml", "maml2017"), Path("runs"), "run")


def test_a_run_is_resumed_without_saying_what_it_is_or_saying_it_rightly(run: Path, started: list[Experiment]) -> None:
    recorded = load_experiment(run)
    cli.main(["train", "--resume", str(run)])
    right = ["--learner", "maml", "--preset", "maml2017", "--task-preset", "maml2017", "--num-tasks", "20"]
    cli.main(["train", "navigation", *right, "--resume", str(run), "--iterations", "120", "--num-threads", "1"])
    assert started == [recorded, replace(recorded, iterations=120, num_threads=1)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bandit"], "task is 'bandit', the run to resume has 'navigation'"),
        (["--learner", "promp"], "learner is 'promp', the run to resume has 'maml'"),
        (["--preset", "corner"], "preset is 'corner', the run to resume has 'maml2017'"),
        (["--preset", "maml2017", "--preset", "corner"], "preset is 'corner', the run to resume has 'maml2017'"),
        (["--task-preset", "corner"], "task-preset is 'corner', the run to resume has 'maml2017'"),
        (["--seed", "1"], "seed is 1, the run to resume has 0"),
        (["--num-envs", "10"], "num_envs is 10, the run to resume has 20"),
        (["--horizon", "10"], "task.horizon is 10, the run to resume has 100"),
        (["--inner-lr", "0.1"], "learner.inner_lr is 0.1, the run to resume has 0.5"),
        (["--outer", "ppo"], "learner.outer.class is 'PPO', the run to resume has 'TRPO'"),
        (["--max-kl", "0.5"], "learner.outer.max_kl is 0.5, the run to resume has 0.01"),
        (["--memory-size", "3"], "Unrecognized options: --memory-size, 3"),
        (["--name", "other"], "name is 'other': a resumed run keeps its own"),
    ],
)
def test_a_run_is_never_resumed_as_another_one(
    arguments: list[str], said: str, run: Path, started: list[Experiment], capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / "config.json").read_text()
    assert refusal(capsys, "--resume", str(run), *arguments).startswith(said)
    assert started == []
    assert (run / "config.json").read_text() == before


def test_a_run_of_another_learner_is_refused_by_name(started: list[Experiment], capsys: Any) -> None:
    run = create_run(presets.make("bandit", "rl2"), Path("runs"), "run")
    said = refusal(capsys, "bandit", "--learner", "maml", "--resume", str(run))
    again = f"continue it with metarl train --resume {run}, or start a new run without --resume"
    assert said == f"learner is 'maml', the run to resume has 'rl2': {again}"
