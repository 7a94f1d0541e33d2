"""The folder a run is recorded in: made once, opened by the names of classes, locked while a process writes to it."""

import errno
import itertools
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from metarl.algorithms import ALGORITHMS
from metarl.envs.registry import TASKS
from metarl.extensions import load_installed
from metarl.fewshot import LEARNERS, FewShotTasks
from metarl.runs import checkpoint
from metarl.runs.beginning import inherit
from metarl.runs.config import CLASS, decode_fields, from_json, to_json
from metarl.runs.experiment import Experiment
from metarl.runs.files import read_file, require_no_links, write_whole
from metarl.runs.playable import require_playable
from metarl.runs.supervised import FewShotExperiment
from metarl.runs.versions import recorded_commit, versions

LONGEST_NAME = 80
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
MOST_BYTES = 1 << 20  # of a config


class RunExists(ValueError):
    """The folder of a new run is there already."""


def default_names(experiment: Experiment) -> Iterator[str]:
    """Names for a run that is given none: two of one second differ by a number."""
    algorithm, task = type(experiment.learner).__name__.lower(), experiment.task.name
    moment = time.strftime("%Y%m%d-%H%M%S")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{algorithm}-{task}-{experiment.preset}")
    for ending in itertools.chain([""], (f"-{number}" for number in itertools.count(2))):
        end = f"-seed{experiment.seed}-{moment}{ending}"
        yield name[: LONGEST_NAME - len(end)] + end  # a long name loses its own end, not the seed


def create_run(experiment: Experiment, root: Path, name: str | None) -> Path:
    """Makes a new run folder with ``config.json`` and ``versions.json``, whole or not at all; never touches one that
    exists. Without a name it is called by learner, task, preset, seed and time, and a number where that is taken.

    Raises:
        ValueError: a bad name, a folder that exists, or a disk that cannot be written.
    """
    names = iter([name]) if name is not None else default_names(experiment)
    chosen = next(names)
    if not RUN_NAME.fullmatch(chosen):
        raise ValueError(f"name is {chosen!r}: use up to 80 letters, digits, '.', '_' and '-', a letter or digit first")
    _require_readable(experiment)
    require_playable(experiment.task, experiment.num_tasks, experiment.episodes, experiment.device)
    half_made = root / f".{chosen}.{secrets.token_hex(8)}.new"  # ignored, should the process die here
    try:
        (half_made / checkpoint.DIRECTORY).mkdir(parents=True)
        found = versions() | ({"init_from": inherit(experiment, half_made)} if experiment.init_from else {})
        write_whole(half_made / "versions.json", json.dumps(found, indent=2).encode() + b"\n")
        record_config(experiment, half_made)
        while not _rename_exclusively(half_made, root / chosen):
            if name is not None:
                run = root / name
                raise RunExists(f"{run} exists: choose another --name, or continue it with --resume {run}")
            chosen = next(names)
    except OSError as error:
        raise _not_writable(root, error) from error
    finally:
        shutil.rmtree(half_made, ignore_errors=True)
    return root / chosen


def _rename_exclusively(folder: Path, target: Path) -> bool:
    """Whether a folder now has its name; of several that want the same one, exactly one gets it."""
    if os.path.lexists(target):  # an empty folder would give way
        return False
    try:
        os.rename(folder, target)
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR) and os.path.lexists(target):
            return False
        raise
    return True


def _not_writable(root: Path, error: OSError) -> ValueError:
    return ValueError(f"cannot write to {root} ({error.strerror}): choose another folder with --runs")


def record_config(experiment: Experiment, run: Path) -> None:
    """``config.json``, anew where a resumed run has other intervals, another length or device."""
    write_whole(run / "config.json", json.dumps(to_json(experiment), indent=2).encode() + b"\n")


def _require_readable(experiment: Experiment) -> None:
    """Raises if the experiment could be trained but not reloaded from its run folder.

    Raises:
        ValueError: a learner or a task that is not known by its name, or a field that JSON changes.
    """
    learner, task = type(experiment.learner), type(experiment.task)
    if (ALGORITHMS | LEARNERS).get(learner.__name__) is not learner:
        raise ValueError(f"learner is a {learner.__name__}: register it with metarl.register, by which runs are opened")
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
    require_no_links(run, run / checkpoint.DIRECTORY)
    try:
        config = json.loads(read_file(path, MOST_BYTES))
    except FileNotFoundError as error:
        raise ValueError(f"{run} is no run folder: it has no config.json") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    recorded = str(config.get("device", "cpu")) if isinstance(config, dict) else "cpu"
    if device is None and recorded.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"{run} is of device {recorded}, which this machine does not have: add --device cpu")
    moved = device is not None and device != recorded
    try:
        experiment = _experiment_from(
            config | {"device": "cpu"} | ({"physics": "auto"} if "physics" in config else {}) if moved else config
        )
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} describes no experiment of this version of metarl{_maker(run)}: {error}") from error
    return experiment if device is None else replace(experiment, device=device)


def _maker(run: Path) -> str:
    """Which version of metarl a run is of, where ``versions.json`` says it."""
    commit = recorded_commit(run)
    return "" if commit is None else f" (it was made by commit {commit[:7]})"


def _class_in(config: Any, name: str) -> str:
    part = config.get(name) if isinstance(config, dict) else None
    kind = part.get(CLASS) if isinstance(part, dict) else None
    if not isinstance(kind, str):
        raise ValueError(f"its {name} is no object with a class")
    return kind if kind.isidentifier() else repr(kind)


def _experiment_from(config: Any) -> Experiment:
    """The inverse of ``to_json``, tasks and learners by the names of their classes."""
    load_installed()
    tasks = {cls.__name__: cls for cls in TASKS.values()}
    kind, algorithm = (_class_in(config, name) for name in ("task", "learner"))
    if kind not in tasks:
        raise ValueError(
            f"its task, {kind}, is defined nowhere here: name the file that defines it with --code, or use that script"
        )
    task = from_json(tasks[kind], config["task"])
    supervised = isinstance(task, FewShotTasks)
    known: dict[str, type[Any]] = {**(LEARNERS if supervised else ALGORITHMS)}
    if algorithm not in known:
        raise ValueError(
            f"its learner, {algorithm}, is none of {', '.join(known)}: name the file that defines it with --code"
        )
    learner = from_json(known[algorithm], config["learner"])
    rest = {key: value for key, value in config.items() if key not in ("class", "task", "learner")}
    form: type[Experiment] = FewShotExperiment if supervised else Experiment
    return form(task=task, learner=learner, **decode_fields(form, rest))
