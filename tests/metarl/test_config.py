"""What a run records of itself, and what is refused: fields, classes, files, names and folders."""

import json
import math
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from metarl import presets
from metarl.algorithms import ALGORITHMS
from metarl.algorithms.es_maml import ESMAML
from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO, TRPO, Gradient
from metarl.algorithms.rl2 import RL2
from metarl.envs.fields import BadField
from metarl.envs.locomotion.ant_dir import AntDir
from metarl.envs.locomotion.ant_goal import AntGoal
from metarl.envs.locomotion.half_cheetah_dir import HalfCheetahDir
from metarl.envs.locomotion.half_cheetah_vel import HalfCheetahVel
from metarl.envs.metaworld import ML1
from metarl.envs.registry import TASKS
from metarl.evaluate import HELD_OUT_SEED
from metarl.networks.mlp import GaussianMLP
from metarl.runs import folder
from metarl.runs.config import from_json, to_json
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, default_names, load_experiment

SMALL = Experiment(task=HalfCheetahDir(), learner=MAML(), preset="promp")


def every_preset() -> list[Any]:
    """Every preset of every task and learner, but for data sets that are not here."""
    return [
        pytest.param(experiment, id=f"{task}-{learner}-{name}")
        for task in TASKS
        for learner in presets.learners(task)
        for name, experiment in presets.find(task, learner).items()
        if not hasattr(experiment.task, "folder")
    ]


# --- dataclasses <-> JSON


@dataclass(frozen=True)
class Point:
    x: float = 0.0
    sizes: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class Circle:
    center: Point = field(default_factory=Point)
    shape: Point | TRPO = field(default_factory=TRPO)


@pytest.mark.parametrize("experiment", every_preset())
def test_every_preset_survives_json(experiment: Experiment) -> None:
    for part in (experiment.task, experiment.learner):
        text = json.dumps(to_json(part))
        assert from_json(type(part), json.loads(text)) == part


@pytest.mark.parametrize("experiment", every_preset())
def test_a_run_folder_remembers_every_preset(experiment: Experiment, tmp_path: Path) -> None:
    changed = replace(experiment, preset="its name", seed=7, iterations=3)
    assert load_experiment(create_run(changed, tmp_path, "run")) == changed


def test_json_holds_names_and_numbers() -> None:
    assert to_json(Circle(Point(1.5, (3,)), Point())) == {
        "class": "Circle",
        "center": {"class": "Point", "x": 1.5, "sizes": [3]},
        "shape": {"class": "Point", "x": 0.0, "sizes": [1, 2]},
    }


@pytest.mark.parametrize("outer", [TRPO(max_kl=0.5), PPO(clip=0.25), Gradient(learning_rate=0.125)])
def test_members_of_a_union_are_told_apart_by_their_class(outer: TRPO | PPO | Gradient) -> None:
    learner = MAML(outer=outer, policy=GaussianMLP((5, 6, 7), "relu"))
    assert from_json(MAML, json.loads(json.dumps(to_json(learner)))) == learner


def test_missing_fields_take_their_defaults() -> None:
    assert from_json(Circle, {"center": {"class": "Point", "x": 2.0}}) == Circle(Point(2.0))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"class": "Circle", "radius": 1}, "Circle has no field radius: it has center, shape"),
        ({"center": {"class": "Point", "z": 1}}, "Point has no field z: it has sizes, x"),
        ({"class": "Point"}, "expected a Circle, the file holds a Point"),
        ({"center": {"class": "TRPO"}}, "center is of the class TRPO: use Point"),
        ({"shape": {"class": "PPO"}}, "shape is of the class PPO: use Point, TRPO"),
        ({"shape": {"class": "os.system"}}, "shape is of the class 'os.system': use Point, TRPO"),
        ({"shape": {"x": 1.0}}, "shape is of the class None: use Point, TRPO"),
    ],
)
def test_unknown_fields_and_classes_are_refused(value: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        from_json(Circle, value)
    assert str(error.value) == message


def test_a_pair_is_two() -> None:
    assert from_json(AntDir, {"healthy": [0.25, 0.75]}).healthy == (0.25, 0.75)
    with pytest.raises(ValueError, match=r"healthy is \[0.25\]"):
        from_json(AntDir, {"healthy": [0.25]})


@pytest.mark.parametrize(
    ("cls", "value"),
    [
        (MAML, {"inner_lr": -1.0}),
        (MAML, {"outer": {"class": "TRPO", "max_kl": 0.0}}),
        (GaussianMLP, {"hidden_sizes": [64, 0]}),
        (HalfCheetahVel, {"max_velocity": 0.0}),
        (HalfCheetahDir, {"horizon": 0}),
        (HalfCheetahDir, {"frame_skip": 0}),
    ],
)
def test_values_that_cannot_run_are_refused(cls: type, value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=" is "):
        from_json(cls, value)


@pytest.mark.parametrize(
    ("cls", "name"),
    [
        (MAML, "inner_lr"),
        (MAML, "discount"),
        (TRPO, "max_kl"),
        (TRPO, "damping"),
        (TRPO, "backtrack_ratio"),
        (PPO, "learning_rate"),
        (HalfCheetahVel, "max_velocity"),
        (AntGoal, "radius"),
    ],
)
def test_nan_is_no_number_that_anything_can_run_with(cls: type, name: str) -> None:
    with pytest.raises(BadField, match=f"{name} is nan: use "):
        cls(**{name: math.nan})


def test_a_refusal_says_every_bound() -> None:
    with pytest.raises(BadField, match=r"^discount is 1.5: use at least 0 and at most 1$"):
        MAML(discount=1.5)
    with pytest.raises(BadField, match=r"^max_kl is 0.0: use more than 0$"):
        TRPO(max_kl=0.0)
    MAML(discount=0.0), MAML(discount=1.0)  # the bounds themselves will do


# --- experiments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_tasks": 0}, "num_tasks is 0: use at least 1"),
        ({"num_envs": -1}, "num_envs is -1: use at least 1"),
        ({"iterations": 0}, "iterations is 0: use at least 1"),
        ({"checkpoint_interval": 0}, "checkpoint_interval is 0: use at least 1"),
        ({"eval_tasks": 0}, "eval_tasks is 0: use at least 1"),
        ({"eval_interval": -1}, "eval_interval is -1: use at least 0"),
        ({"min_steps": -1}, "min_steps is -1: use at least 0"),
        ({"min_steps": 9, "learner": RL2()}, "min_steps is 9: use 0, the learner plays trials"),
        ({"num_threads": -1}, "num_threads is -1: use at least 0"),
        ({"seed": -1}, "seed is -1: use at least 0"),
        ({"episodes": 30}, r"episodes is 30: use a multiple of num_envs \(20\)"),
        ({"learner": ESMAML(pairs=3)}, r"num_envs is 20: use a multiple of 6, the policies of a task that ESMAML"),
        ({"seed": HELD_OUT_SEED}, "the held-out tasks are drawn from it"),
        ({"device": "gpu"}, "device is 'gpu'"),
        ({"physics": "bullet"}, "physics is 'bullet'"),
        ({"task": ML1(), "eval_tasks": 51}, "eval_tasks is 51: ml1 has 50 test tasks"),
    ],
)
def test_an_experiment_that_cannot_run_is_refused_before_any_work(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_a_cuda_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert replace(SMALL, device="cuda:1").device == "cuda:1"
    with pytest.raises(BadField, match="device is 'cuda:2': this machine has 2, from cuda:0 on"):
        replace(SMALL, device="cuda:2")


# --- run folders that are read


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    for run in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError) as error:
            load_experiment(run)
        assert str(error.value) == f"{run} is no run folder: it has no config.json"


def recorded() -> dict[str, Any]:
    """The config of a run, ready to be broken."""
    config: dict[str, Any] = json.loads(json.dumps(to_json(SMALL)))
    return config


def test_the_config_to_be_broken_is_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(recorded()))
    assert load_experiment(tmp_path) == SMALL


BROKEN_TEXT = [
    "",
    "{",
    "[1,",
    '{"task": nothing}',
    "\0\0\0",
    '{"task": {"class": "HalfCheetahDir"',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", BROKEN_TEXT, ids=lambda text: text[:12])
def test_broken_json_is_refused_with_its_path(tmp_path: Path, text: str) -> None:
    assert_refused(tmp_path, text.encode())


def test_bytes_that_are_no_text_are_refused_with_their_path(tmp_path: Path) -> None:
    assert_refused(tmp_path, b"\xff\xfe\x00{}")


def test_a_config_that_is_a_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ValueError, match=str(tmp_path / "config.json")):
        load_experiment(tmp_path)


@pytest.mark.parametrize("config", [[], {}, 1, None, "text", {"task": 1}, {"task": [], "learner": []}], ids=str)
def test_json_that_is_no_experiment_is_refused_with_its_path(tmp_path: Path, config: Any) -> None:
    assert_refused(tmp_path, json.dumps(config).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("task",), None),
        (("task",), [["class", "HalfCheetahDir"]]),
        (("task", "class"), "Dog"),
        (("task", "class"), ["HalfCheetahDir"]),
        (("task", "gravity"), 9.81),
        (("task", "horizon"), 0),
        (("task", "horizon"), "long"),
        (("learner",), "MAML"),
        (("learner", "class"), "os.system"),
        (("learner", "inner_lr"), None),
        (("learner", "policy"), 5),
        (("learner", "policy"), None),
        (("learner", "policy", "class"), "TRPO"),
        (("learner", "policy", "hidden_sizes"), 64),
        (("learner", "outer"), [1, 2]),
        (("learner", "estimator"), "mamal"),
        (("learner", "learn_inner_lr"), "false"),  # true, as texts go
        (("num_tasks",), 0),
        (("num_tasks",), "forty"),
        (("num_tasks",), 2.5),
        (("device",), "gpu"),
        (("colour",), "red"),
    ],
    ids=str,
)
def test_a_config_with_one_wrong_value_is_refused_with_its_path(
    tmp_path: Path, path: tuple[str, ...], value: Any
) -> None:
    """A file of another version, or one edited by hand."""
    config = inner = recorded()
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    assert_refused(tmp_path, json.dumps(config).encode())


def assert_refused(run: Path, raw: bytes) -> None:
    (run / "config.json").write_bytes(raw)
    with pytest.raises(ValueError) as error:
        load_experiment(run)
    assert str(run / "config.json") in str(error.value)
    assert "\n" not in str(error.value)


# --- run folders that are made


def test_a_run_folder_holds_config_and_versions(tmp_path: Path) -> None:
    run = create_run(SMALL, tmp_path / "made" / "on the way", "a.b-c_1")
    assert sorted(path.name for path in run.iterdir()) == ["checkpoints", "config.json", "versions.json"]
    assert set(json.loads((run / "config.json").read_text())) == {"class", *(f.name for f in fields(SMALL))}
    versions = json.loads((run / "versions.json").read_text())
    assert versions.keys() >= {"torch", "mujoco", "gymnasium", "numpy", "metarl", "python", "git_commit"}


def test_an_existing_folder_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="exists: choose another --name, or continue it with --resume"):
        create_run(SMALL, tmp_path, "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


BAD_NAMES = [
    *(
        "../x",
        "",
        "a/b",
        "/etc",
        ".",
        "..",
        ".hidden",
        "-option",
        "~",
        "a b",
        "a\n",
        " a",
        "a ",
        "a\0b",
        "a\\b",
    ),
    *("ü", "é", "名", "a\u2024b", "\u202ea", "a" * 81, "a" * 300),
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_bad_names_are_refused_before_anything_is_made(tmp_path: Path, name: str) -> None:
    root = tmp_path / "runs"
    with pytest.raises(ValueError, match=r"name is .*: use up to 80 letters"):
        create_run(SMALL, root, name)
    assert not root.exists()


@pytest.mark.parametrize("experiment", every_preset())
def test_default_names_are_good_ones(experiment: Experiment, tmp_path: Path) -> None:
    named = replace(experiment, preset="a-preset-of-20-chars", seed=10**9)
    assert create_run(named, tmp_path, None).is_dir()
    assert "a-preset-of-20-chars-seed1000000000" in next(default_names(named))


def test_a_disk_that_cannot_be_written_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*arguments: Any, **options: Any) -> NoReturn:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(ValueError) as error:
        create_run(SMALL, tmp_path / "runs", "run")
    expected = f"cannot write to {tmp_path / 'runs'} (Read-only file system): choose another folder with --runs"
    assert str(error.value) == expected


def test_a_disk_that_fills_up_leaves_no_half_made_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "write_whole", full)
    with pytest.raises(ValueError, match="No space left on device"):
        create_run(SMALL, tmp_path, "run")
    assert not (tmp_path / "run").exists()


@dataclass(frozen=True)
class OwnMAML(MAML):
    pass


@dataclass(frozen=True)
class NamelessTask(HalfCheetahDir):
    pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learner": OwnMAML()}, "learner is a OwnMAML: register it with metarl.register"),
        ({"task": NamelessTask()}, "task is a NamelessTask: give it a name of its own"),
    ],
)
def test_what_could_never_be_opened_again_is_not_trained(
    change: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=message):
        create_run(replace(SMALL, **change), tmp_path, "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(ALGORITHMS, "OwnMAML", OwnMAML)
    assert load_experiment(create_run(replace(SMALL, learner=OwnMAML()), tmp_path, "run")).learner == OwnMAML()


@pytest.mark.parametrize("inside", [False, True])
def test_a_file_in_the_place_of_the_folder_of_runs_is_said_in_a_sentence(tmp_path: Path, inside: bool) -> None:
    """It is the root that is wrong, so another name would not help."""
    (tmp_path / "file").write_text("")
    root = tmp_path / "file" / "runs" if inside else tmp_path / "file"
    with pytest.raises(ValueError, match=r"cannot write to .*: choose another folder with --runs"):
        create_run(SMALL, root, "run")


def test_a_run_of_a_gpu_is_read_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told another device, it takes the engine that fits that one; not told, one sentence says how."""
    run = create_run(SMALL, tmp_path, "run")
    config = json.loads((run / "config.json").read_text()) | {"device": "cuda", "physics": "warp"}
    (run / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_experiment(run, device="cpu") == SMALL
    with pytest.raises(ValueError, match="is of device cuda, which this machine does not have: add --device cpu"):
        load_experiment(run)
