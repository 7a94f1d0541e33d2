"""Damaged and forged run folders: opening one ends well or in one sentence that names file or field, and touches
nothing outside of it."""

import io
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import run_checks
from jaxtyping import TypeCheckError
from rich.console import Console

from metarl.algorithms.maml import MAML
from metarl.algorithms.outer import PPO
from metarl.algorithms.rl2 import RL2
from metarl.envs.small.navigation import Navigation
from metarl.networks.mlp import GaussianMLP
from metarl.networks.recurrent import RecurrentPolicy
from metarl.reports.curves import read_scalars
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.reports.figures import learning_curves
from metarl.runs.checkpoint import CheckpointError
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.session import execute
from metarl.runs.snapshot import load_progress
from metarl.runs.studies import Row
from metarl.runs.study_folders import MARK, StudyRun, standing

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(120)]
TINY = replace(run_checks.TINY, task=Navigation(horizon=4), learner=MAML(GaussianMLP((4,)), outer=PPO()))
REMEMBERING = replace(TINY, learner=RL2(policy=RecurrentPolicy(memory_size=4), epochs=1))
LENGTH = 3  # iterations of a resumed run
TAGS = ["meta_train/return_post"]
SENTENCES = (ValueError, CheckpointError, FloatingPointError, OSError)  # what the command line prints as they are
OPTIONS = ("--tasks", "2")
FILES = ["config.json", "versions.json", "progress.csv", "events", "evaluation.json", MARK, "older", "newest"]


def quiet() -> Console:
    return Console(file=io.StringIO(), width=400)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two iterations and its evaluation, as a study leaves it."""
    run = create_run(TINY, tmp_path_factory.mktemp("whole"), "run")
    assert execute(TINY, run, console=quiet()) == 0
    evaluate_run(run, Protocol(tasks=2, episodes=2, steps=1), pretrain_iterations=0, console=quiet())
    (run / MARK).write_text(json.dumps({"evaluation": "evaluation.json", "options": OPTIONS}))
    return run


@pytest.fixture(scope="module")
def undisturbed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The parameters of the same run after a third iteration."""
    run = copied(whole, tmp_path_factory.mktemp("undisturbed"))
    execute(replace(TINY, iterations=LENGTH), run, console=quiet())
    return parameters(run)


def parameters(run: Path) -> str:
    progress = load_progress(replace(TINY, iterations=LENGTH), run, pytest.fail)
    assert progress.iteration == LENGTH
    return repr({name: value.tolist() for name, value in progress.learner_state.meta.items()})


def copied(whole: Path, folder: Path) -> Path:
    return shutil.copytree(whole, folder / "run")


def file_of(run: Path, name: str) -> Path:
    places = {"events": "events.out.tfevents.*", "older": "checkpoints/*1.ckpt", "newest": "checkpoints/*2.ckpt"}
    return next(run.glob(places.get(name, name)))


def opened(run: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Everything that opens a run folder, by name; training last."""
    yield "load_experiment", lambda: load_experiment(run)
    yield "load_progress", lambda: load_progress(TINY, run, said)
    yield "read_scalars", lambda: read_scalars(run, TAGS)
    yield "standing", lambda: standing(StudyRun(Row("row", "a row", TINY, evaluate=OPTIONS), 0, run))
    yield "execute", lambda: execute(resumed(load_experiment(run)), run, console=quiet())


def resumed(found: Experiment) -> Experiment:
    """No longer, and on no more threads, than the test wants to wait for."""
    return replace(found, iterations=LENGTH, eval_interval=0, num_threads=1)


def said(line: str) -> None:
    assert "\n" not in line


def outcomes(run: Path, *also: str) -> dict[str, str]:
    """What each said, empty where it went well.

    ``also`` are names, one of which each sentence has to have, besides that of the run folder.
    """
    found = {}
    for name, work in opened(run):
        try:
            work()
            found[name] = ""
        except SENTENCES as error:
            found[name] = sentence(error, run.name, *also)
    return found


def sentence(error: Exception, *names: str) -> str:
    text = str(error)
    assert "\n" not in text
    assert any(name in text for name in names), text
    return text


def tree(folder: Path, besides: Path) -> dict[str, tuple[int, bytes]]:
    """Everything under a folder but the run."""
    paths = [path for path in folder.rglob("*") if besides not in (path, *path.parents)]
    return {str(p): (p.lstat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in paths}


# --- damage


@pytest.mark.parametrize("flips", [3, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILES)
def test_flips_and_cuts_of_every_file(name: str, flips: int, whole: Path, undisturbed: str, tmp_path: Path) -> None:
    """Where the run goes on all the same, it ends with the bits of an undisturbed one."""
    chance = random.Random(name)
    content = file_of(whole, name).read_bytes()
    places = [chance.randrange(8 * len(content)) for _ in range(flips)]
    harms = [content[: p // 8] + bytes([content[p // 8] ^ 1 << p % 8]) + content[p // 8 + 1 :] for p in places]
    harms += [content[:length] for length in (0, len(content) // 2, len(content) - 1)] + [content + b"\0\xff{"]
    for number, harm in enumerate(harms):
        run = copied(whole, tmp_path / f"{number}")
        file_of(run, name).write_bytes(harm)
        before = tree(tmp_path / f"{number}", run)
        found = outcomes(run, "checkpoint")
        assert tree(tmp_path / f"{number}", run) == before
        if not found["execute"]:
            assert parameters(run) == undisturbed
        else:
            assert name == "config.json"


@pytest.mark.parametrize(
    "raw", [b"", b"\xff\xfe\0", b"a,b\n1,2\n", b"iteration,env_steps,meta_train/return_post\n1,x,y\n"]
)
def test_figures_of_damaged_tables(raw: bytes, whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    (run / "progress.csv").write_bytes(raw)
    with pytest.raises(ValueError, match=r"progress\.csv"):
        learning_curves([run], tmp_path / "picture.png", tags=TAGS)
    assert not (tmp_path / "picture.png").exists()


FORGED = [
    None,
    [],
    "text",
    7,
    {"protocol": []},
    {"protocol": {"iterations": "2"}},
    {"protocol": {"iterations": math.nan}},
    {"protocol": {"iterations": {}}},
]


@pytest.mark.parametrize("forged", FORGED)
def test_forged_evaluations_are_none(forged: Any, whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    study_run = StudyRun(Row("row", "a row", TINY, evaluate=OPTIONS), 0, run)
    assert standing(study_run).evaluation is not None
    for name in ("evaluation.json", "versions.json", MARK):
        kept = (run / name).read_bytes()
        (run / name).write_text(json.dumps(forged))
        assert standing(study_run).evaluation is None or name == "versions.json"
        assert standing(study_run).commit is None or name != "versions.json"
        (run / name).write_bytes(kept)


@pytest.mark.parametrize(
    "name", ["../evaluation.json", "/evaluation.json", "sub/evaluation.json", "config.json", 3, None]
)
def test_a_mark_names_no_file_elsewhere(name: Any, whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    name = f"{tmp_path}{name}" if str(name).startswith("/") else name
    shutil.copy(run / "evaluation.json", tmp_path)
    (run / "sub").mkdir()
    shutil.copy(run / "evaluation.json", run / "sub")
    (run / MARK).write_text(json.dumps({"evaluation": name, "options": OPTIONS}))
    assert standing(StudyRun(Row("row", "a row", TINY, evaluate=OPTIONS), 0, run)).evaluation is None


# --- forged configs


MISSING = object()
VALUES = [None, True, "x\ny", -1, 0, 1.5, 10**30, math.nan, -math.inf, [], [math.nan], {}, {"class": "MAML"}, MISSING]


def paths_of(value: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Of every field, nested ones and the objects they are in."""
    for key, inner in value.items():
        yield (*path, key)
        if isinstance(inner, dict):
            yield from paths_of(inner, *path, key)


def as_float(value: Any, before: Any) -> bool:
    return type(value) is int and type(before) is float


@pytest.mark.parametrize("experiment", [TINY, REMEMBERING], ids=["maml", "rl2"])
def test_every_edit_of_a_config(experiment: Experiment, tmp_path: Path) -> None:
    """Says the file and the field, or opens an experiment that a run of its own could have."""
    run = create_run(experiment, tmp_path, "run")
    config = json.loads((run / "config.json").read_text())
    refused = 0
    for path in paths_of(config):
        for value in VALUES:
            edited = json.loads(json.dumps(config))
            holder = edited
            for key in path[:-1]:
                holder = holder[key]
            if value is MISSING:
                del holder[path[-1]]
            else:
                holder[path[-1]] = float(value) if as_float(value, holder[path[-1]]) else value
            (run / "config.json").write_text(json.dumps(edited))
            try:
                load_experiment(run)
            except SENTENCES as error:
                if isinstance(error.__cause__, TypeCheckError):  # a whole number for a float or None: only tests mind
                    assert type(value) is int
                    continue
                refused += 1
                text = sentence(error, "config.json")
                assert path[-1] in text or path[-1] == "class", text
    assert refused > 300


@pytest.mark.parametrize("where", [(), ("task",), ("learner",)])
@pytest.mark.parametrize("name", ["extra", "__class__", "a\nb", ""])
def test_extra_fields(where: tuple[str, ...], name: str, whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    config = json.loads((run / "config.json").read_text())
    (config[where[0]] if where else config)[name] = 1
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json") as error:
        load_experiment(run)
    sentence(error.value, "has no field")


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{}", "[" * 100_000, '{"a":' * 50_000, "{" + " " * (1 << 20)])
def test_other_json(text: str, whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    (run / "config.json").write_text(text)
    found = outcomes(run)
    assert "config.json" in found["load_experiment"]
    assert "config.json" in found["execute"]


# --- links, pipes and folders in the place of files


@pytest.mark.parametrize("name", [*FILES, "checkpoints", "run.lock"])
@pytest.mark.parametrize("kind", ["file", "dangling", "loop", "pipe", "folder"])
def test_other_things_in_place_of_each_file(kind: str, name: str, whole: Path, tmp_path: Path) -> None:
    run = copied(whole, tmp_path)
    place, outside = file_of(run, name), tmp_path / "outside"
    if place.is_dir():
        shutil.move(place, outside)
    else:
        outside.write_bytes(place.read_bytes())
        place.unlink()
    make = {
        "file": lambda: place.symlink_to(outside),
        "dangling": lambda: place.symlink_to(tmp_path / "nothing"),
        "loop": lambda: place.symlink_to(place),
        "pipe": lambda: os.mkfifo(place),
        "folder": lambda: (place / "in").mkdir(parents=True),
    }
    make[kind]()
    before = tree(tmp_path, run)
    found = outcomes(run, place.name, "checkpoint")
    assert tree(tmp_path, run) == before
    if kind not in ("pipe", "folder"):
        assert place.name in found["load_experiment"]
        assert place.name in found["execute"]
        assert name != "progress.csv" or place.name in found["read_scalars"]
    study_run = StudyRun(Row("row", "a row", TINY, evaluate=OPTIONS), 0, run)
    assert name not in ("evaluation.json", MARK) or standing(study_run).evaluation is None


# --- and what must go on


@pytest.mark.parametrize("seed", range(1, 7))
def test_every_seed_can_be_resumed(seed: int, tmp_path: Path) -> None:
    """The worlds hold a seed of their own of up to 63 bits; a checkpoint with any of them is a good one."""
    experiment = replace(TINY, seed=seed, iterations=1)
    run = create_run(experiment, tmp_path, "run")
    for iterations in (1, 2):
        assert execute(replace(experiment, iterations=iterations), run, console=quiet()) == 0
