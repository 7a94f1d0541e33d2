"""The folder a run is recorded in: made once, opened by the names of classes, locked while a process writes to it."""

import fcntl
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarl.algorithms import ALGORITHMS
from metarl.envs.registry import TASKS
from metarl.runs import checkpoint
from metarl.runs.config import decode_fields, from_json, to_json
from metarl.runs.experiment import Experiment
from metarl.runs.playable import require_playable

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


DISTRIBUTION = "metarl-toolkit"
RECORDED = ("torch", "mujoco", "gymnasium", "metaworld", "numpy")


def default_name(experiment: Experiment) -> str:
    algorithm = type(experiment.learner).__name__.lower()
    moment = time.strftime("%Y%m%d-%H%M%S")
    return f"{algorithm}-{experiment.task.name}-{experiment.preset}-seed{experiment.seed}-{moment}"


def create_run(experiment: Experiment, root: Path, name: str | None) -> Path:
    """Makes a new run folder with ``config.json`` and ``versions.json``; never touches one that exists.

    Raises:
        ValueError: a bad name, a folder that exists, or a disk that cannot be written.
    """
    name = default_name(experiment) if name is None else name
    if not RUN_NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}: use up to 80 letters, digits, '.', '_' and '-', a letter or digit first")
    _require_readable(experiment)
    require_playable(experiment.task, experiment.num_tasks, experiment.episodes, experiment.device)
    run = root / name
    try:
        run.mkdir(parents=True)
    except FileExistsError as error:
        raise ValueError(f"{run} exists: choose another --name, or continue it with --resume {run}") from error
    except OSError as error:
        raise _not_writable(root, error) from error
    try:
        (run / checkpoint.DIRECTORY).mkdir()
        (run / "versions.json").write_text(json.dumps(versions(), indent=2) + "\n")
        record_config(experiment, run)
    except OSError as error:
        shutil.rmtree(run, ignore_errors=True)  # a half-made folder would hold its name
        raise _not_writable(root, error) from error
    return run


def _not_writable(root: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write to {root} ({error.strerror}): choose another folder with --runs")


def record_config(experiment: Experiment, run: Path) -> None:
    """``config.json``, anew where a resumed run has other intervals, another length or device."""
    temporary = run / "config.tmp"
    temporary.write_text(json.dumps(to_json(experiment), indent=2) + "\n")
    os.replace(temporary, run / "config.json")


def _require_readable(experiment: Experiment) -> None:
    """Raises if the experiment could be trained but not reloaded from its run folder.

    Raises:
        ValueError: a learner or a task that is not known by its name, or a field that JSON changes.
    """
    learner, task = type(experiment.learner), type(experiment.task)
    if ALGORITHMS.get(learner.__name__) is not learner:
        raise ValueError(f"learner is a {learner.__name__}: add it to metarl.ALGORITHMS, by which runs are opened")
    if TASKS.get(task.name) is not task:
        raise ValueError(f"task is a {task.__name__}: give it a name of its own, by which runs are opened")
    if _experiment_from(json.loads(json.dumps(to_json(experiment)))) != experiment:
        raise ValueError("the experiment has a field that config.json cannot hold: use numbers, strings and tuples")


def load_experiment(run: Path, device: str | None = None) -> Experiment:
    """The experiment a run folder records, on ``device`` with the engine that fits it where that is another one.

    Raises:
        ValueError: not a run folder, or one of another version, or of a device that this machine does not have.
    """
    path = run / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"{run} is no run folder: it has no config.json") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    recorded = str(config.get("device", "cpu")) if isinstance(config, dict) else "cpu"
    if device is None and recorded.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{run} is of device {recorded}, which this machine does not have: add --device cpu")
    moved = device is not None and device != recorded
    try:
        experiment = _experiment_from(config | {"device": "cpu", "physics": "auto"} if moved else config)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} describes no experiment of this version of metarl{_maker(run)}: {error}") from error
    return experiment if device is None else replace(experiment, device=device)


def _maker(run: Path) -> str:
    """Which version of metarl a run is of, where ``versions.json`` says it."""
    try:
        return f" (it was made by commit {json.loads((run / 'versions.json').read_text())['git_commit'][:7]})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _experiment_from(config: Any) -> Experiment:
    """The inverse of ``to_json``, tasks and learners by the names of their classes."""
    tasks = {cls.__name__: cls for cls in TASKS.values()}
    kind = config["task"]["class"]
    if kind not in tasks:
        raise ValueError(
            f"its task, {kind}, is defined nowhere here: name the file that defines it with --code, or use that script"
        )
    task = from_json(tasks[kind], config["task"])
    algorithm = config["learner"]["class"]
    if algorithm not in ALGORITHMS:
        raise ValueError(f"its learner, {algorithm}, is none of {', '.join(ALGORITHMS)}")
    learner = from_json(ALGORITHMS[algorithm], config["learner"])
    rest = {key: value for key, value in config.items() if key not in ("class", "task", "learner")}
    return Experiment(task=task, learner=learner, **decode_fields(Experiment, rest))


def versions() -> dict[str, Any]:
    """What the numbers of a run depend on besides its config."""
    found: dict[str, Any] = {name: importlib.metadata.version(name) for name in RECORDED}
    found["metarl"] = importlib.metadata.version(DISTRIBUTION)
    return {
        **found,
        "python": platform.python_version(),
        "git_commit": _git_commit(),
        "cpu_cores": os.cpu_count(),
    }


def _git_commit() -> str | None:
    """The commit of this source tree, with ``+changes`` where it was edited; None outside a git checkout."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        changed = bool(git("status", "--porcelain", "--untracked-files=no"))
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


@contextmanager
def run_lock(run: Path) -> Iterator[None]:
    """Held while a process writes to a run; the kernel drops it when the process dies.

    Raises:
        ValueError: another process holds it.
    """
    with open(run / "run.lock", "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"{run} is in use by another process: wait for it, or stop it") from error
        yield
