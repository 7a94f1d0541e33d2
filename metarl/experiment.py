"""What a run is: a task distribution, a learner, and how much of each; and the folder it is recorded in."""

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from envs.api import ENGINES, TASKS, BadField, TaskDistribution, TaskEnv, VisibleTask, find_engine, require
from metarl import checkpoint
from metarl.algorithms import ALGORITHMS
from metarl.config import decode_fields, from_json, to_json
from metarl.evaluate import HELD_OUT_SEED
from metarl.streams import stream_seed
from metarl.types import MetaLearner

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
CHANGEABLE = (  # on resume
    "iterations",
    "checkpoint_interval",
    "eval_interval",
    "device",
    "physics",
    "num_threads",
    "deterministic",
)
RECORDED = ("torch", "mujoco", "gymnasium", "metaworld", "numpy", "metarl")

TaskT = TypeVar("TaskT", bound=TaskDistribution)
LearnerT = TypeVar("LearnerT", bound=MetaLearner)


@dataclass(frozen=True)
class Experiment(Generic[TaskT, LearnerT]):
    task: TaskT
    """The task distribution."""
    learner: LearnerT
    """The algorithm."""
    preset: str = ""
    """Whose definition of the experiment to start from; the other options change single fields of it."""
    num_tasks: int = 40
    """Tasks in a meta-batch."""
    num_envs: int = 20
    """Parallel worlds of each task."""
    episodes: int = 20
    """Episodes of each task for each batch of experience; a multiple of num_envs."""
    iterations: int = 100
    """Meta-updates."""
    seed: int = 0
    """Seed of everything random."""
    device: str = "cpu"
    """Where policy, rewards and updates are computed: cpu, cuda, cuda:1 ..."""
    physics: str = "auto"
    """Physics engine: cpu (MuJoCo on threads), warp (MuJoCo Warp on the device), or auto, which fits the device."""
    deterministic: bool = False
    """Equal bits from run to run on a GPU, where physics then takes some three times as long; CPUs always have them."""
    num_threads: int = 0
    """CPU threads; 0: every core."""
    checkpoint_interval: int = 10
    """Iterations between checkpoints; one is always written at the end and when the run is stopped."""
    eval_interval: int = 10
    """Iterations between tests on held-out tasks; 0: never."""
    eval_tasks: int = 20
    """Held-out tasks in such a test."""

    def __post_init__(self) -> None:
        """Refuses what cannot run, before any work."""
        counts = ("num_tasks", "num_envs", "episodes", "iterations", "checkpoint_interval", "eval_tasks")
        require(self, *counts, at_least=1)
        require(self, "num_threads", "eval_interval", "seed", at_least=0)
        if self.episodes % self.num_envs:
            raise BadField(
                f"episodes is {self.episodes}: use a multiple of num_envs ({self.num_envs}), so that every world "
                "plays equally many"
            )
        limit = self.task.num_test_tasks
        if limit is not None and self.eval_tasks > limit:
            raise BadField(f"eval_tasks is {self.eval_tasks}: {self.task.name} has {limit} test tasks")
        if self.seed == HELD_OUT_SEED:
            raise BadField(f"seed is {self.seed}: use another one, the held-out tasks are drawn from it")
        annealed = getattr(self.learner, "anneal_updates", 0)  # of learners that have a schedule
        if 0 < annealed < self.iterations:
            raise BadField(
                f"iterations is {self.iterations}: use at most anneal_updates ({annealed}), where the learning rate "
                "reaches zero, or begin a run with both of them higher"
            )
        if self.device != "cpu" and not re.fullmatch(r"cuda(:\d+)?", self.device):
            raise BadField(f"device is {self.device!r}: use cpu, cuda or cuda:0")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise BadField(f"device is {self.device!r}: this machine has no CUDA device, use cpu")
        if int(self.device.partition(":")[2] or 0) >= max(1, torch.cuda.device_count()):
            raise BadField(f"device is {self.device!r}: this machine has {torch.cuda.device_count()}, from cuda:0 on")
        if self.physics not in ENGINES:
            raise BadField(f"physics is {self.physics!r}: use one of {', '.join(ENGINES)}")
        if isinstance(self.task, VisibleTask):
            find_engine(self.physics, self.device)

    @property
    def episodes_per_env(self) -> int:
        """Consecutive episodes of a world in a batch: the length of a trial, for a learner that remembers."""
        return self.episodes // self.num_envs

    def make_env(self, num_tasks: int, num_envs: int, *, stream: str) -> TaskEnv:
        """An environment of this experiment's tasks; ``stream`` names the random stream of its resets."""
        return self.task.make(
            num_tasks,
            num_envs,
            seed=stream_seed(self.seed, stream),
            device=self.device,
            physics=self.physics,
            num_threads=self.num_threads,
        )


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
    """Refuses what trains but could never be opened again.

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
