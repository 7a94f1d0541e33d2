"""The command ``metarl``: what one does with runs once an experiment script has made them."""

import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.console import Console
from rich.table import Table

from envs.api import TASKS, TaskDistribution, find_preset
from metarl.evaluate_run import Protocol, evaluate_run
from metarl.gl import find_backend
from metarl.plot import learning_curves
from metarl.run import errors_in_one_sentence, parse, prepare_process
from metarl.video import render_run

LIST_NOTES = """
param: numbers of a task's parameter; obs, action: of an observation and an action ("of 5": a choice); steps: at most,
in an episode; ends: whether one can end before; success: whether it is defined.
Other libraries: gymnasium.make("envs:metarl/HalfCheetahDir-v0", preset="v5"), by the name of a task's class."""


@dataclass(frozen=True)
class Evaluate:
    """Test a run on held-out tasks as it adapts, by inner steps or episodes, beside what it is to be compared with."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    protocol: tyro.conf.OmitArgPrefixes[Protocol]
    pretrain_iterations: int | None = None
    """Iterations of the comparison trained on all tasks jointly without adapting; by default for as many environment
    steps as the run took, and none where there are reference agents; 0: leave it out."""
    device: str | None = None
    """Where to test, with the physics engine that fits; by default where the run was trained."""
    code: Path | None = None
    """A Python file that defines the run's task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        run_code(self.code)
        evaluate_run(
            self.run,
            self.protocol,
            pretrain_iterations=self.pretrain_iterations,
            console=console,
            device=self.device,
        )


@dataclass(frozen=True)
class Plot:
    """Draw learning curves of runs, a panel for each task and tag; runs that differ only in their seed share a line."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    tag: tuple[str, ...] = ("meta_train/return_post",)
    """Columns of progress.csv. Of learners that remember: meta_train/return_trial."""
    out: Path = Path("curves.png")
    """The picture to write."""
    code: Path | None = None
    """A Python file that defines the runs' task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        run_code(self.code)
        learning_curves(list(self.runs), self.out, tags=self.tag)
        console.print(f"wrote {self.out}")


@dataclass(frozen=True)
class Video:
    """Film one held-out task before and after adaptation, or the first and last episode of a trial, side by side."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    task: int = 0
    """Which held-out task."""
    steps: int | None = None
    """Inner steps before the right-hand picture, or which episode it shows of a learner that remembers; by default as
    in training."""
    out: Path | None = None
    """Folder to write to; by default videos/ in the run."""
    code: Path | None = None
    """A Python file that defines the run's task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        run_code(self.code)
        for path in render_run(self.run, task_index=self.task, adapt_steps=self.steps, out=self.out):
            console.print(f"wrote {path}")


@dataclass(frozen=True)
class List:
    """Show every task distribution, its presets and dimensions."""

    code: Path | None = None
    """A Python file that defines more tasks; it is run."""

    def __call__(self, console: Console) -> None:
        run_code(self.code)
        found = Table(box=None, padding=(0, 1, 0, 0))
        for column in ("task", "preset", "param", "obs", "action", "steps", "ends", "success"):
            found.add_column(column, no_wrap=True, justify="left" if column in ("task", "preset") else "right")
        for name, cls in sorted(TASKS.items()):
            for position, (preset, task) in enumerate((cls.presets or {"-": find_preset(name)}).items()):
                found.add_row(name if position == 0 else "", preset, *dimensions(task))
        unlimited = console.options.update(max_width=1000)  # names must not be cut; a narrow screen wraps lines
        console.print(found, width=console.measure(found, options=unlimited).maximum, crop=False)
        console.print(LIST_NOTES, highlight=False)


def dimensions(task: TaskDistribution) -> tuple[str, ...]:
    """What :class:`List` says of a definition."""
    spec = task.spec
    parameter = task.sample(1, torch.Generator().manual_seed(0))[0]
    action = f"of {spec.action_dim}" if spec.discrete else str(spec.action_dim)
    numbers = (str(parameter.numel()), str(spec.obs_dim), action, str(spec.horizon))
    return *numbers, "yes" if spec.terminates else "no", "yes" if spec.has_success else "-"


@dataclass(frozen=True)
class Doctor:
    """Check this machine: versions, threads, GPU, rendering, physics speed."""

    def __call__(self, console: Console) -> None:
        names = ("metarl", "torch", "mujoco", "gymnasium", "numpy", "tensorboard")
        console.print(f"python {platform.python_version()}, {platform.platform()}")
        console.print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))
        console.print(f"CPU: {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads")
        gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch can use"
        console.print(f"GPU: {gpu}")
        backend = find_backend()
        remedy = "none: install libosmesa6, or libegl1 libgl1 libgl1-mesa-dri, for metarl video"
        console.print(f"rendering: {backend or remedy}")
        console.print(f"physics: {physics_rate():,.0f} half-cheetah steps/s (5 substeps each, 400 worlds)")


def run_code(path: Path | None) -> None:
    """Runs a file for the classes that it defines, as an import, not as a script.

    Raises:
        ValueError: there is no such Python file.
    """
    if path is None:
        return
    spec = importlib.util.spec_from_file_location("code_of_a_user", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"code is {path}: there is no such Python file")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def physics_rate(num_steps: int = 50) -> float:
    """Environment steps a second of the half-cheetah with random actions, environment included."""
    env = find_preset("half_cheetah_dir", "v5").make(20, 20, seed=0)
    env.set_tasks(torch.ones(20))
    env.reset()
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(num_steps):
        env.step(torch.rand(20, 20, env.spec.action_dim, generator=generator) * 2 - 1)
    return num_steps * env.num_tasks * env.num_envs / (time.perf_counter() - began)


Verb = (
    Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Plot, tyro.conf.subcommand("plot")]
    | Annotated[Video, tyro.conf.subcommand("video")]
    | Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Doctor, tyro.conf.subcommand("doctor")]
)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``metarl``; ends with one sentence and exit code 2 on bad input."""
    with errors_in_one_sentence():
        verb = parse(Verb, arguments, prog="metarl", description=__doc__)
        prepare_process(num_threads=0)
        verb(Console(soft_wrap=True) if not sys.stdout.isatty() else Console())
