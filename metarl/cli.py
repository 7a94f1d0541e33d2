"""The command ``metarl``: what one does with runs once an experiment script has made them."""

import importlib.metadata
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

from envs.api import TASKS, find_preset
from metarl.evaluate_run import Protocol, evaluate_run
from metarl.gl import find_backend
from metarl.plot import learning_curves
from metarl.run import errors_in_one_sentence, parse, prepare_process
from metarl.video import render_run


@dataclass(frozen=True)
class Evaluate:
    """Test a run on held-out tasks as it adapts, by inner steps or episodes, beside what it is to be compared with."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    protocol: tyro.conf.OmitArgPrefixes[Protocol]
    pretrain_iterations: int | None = None
    """Iterations of the comparison trained on all tasks jointly without adapting; by default as many as the run has,
    and none where there are reference agents; 0: leave it out."""

    def __call__(self, console: Console) -> None:
        evaluate_run(self.run, self.protocol, pretrain_iterations=self.pretrain_iterations, console=console)


@dataclass(frozen=True)
class Plot:
    """Draw learning curves of runs; runs that differ only in their seed share a line."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    tag: str = "meta_train/return_post"
    """A column of progress.csv."""
    out: Path = Path("runs/curves.png")
    """The picture to write."""

    def __call__(self, console: Console) -> None:
        learning_curves(list(self.runs), self.out, tag=self.tag)
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

    def __call__(self, console: Console) -> None:
        for path in render_run(self.run, task_index=self.task, adapt_steps=self.steps, out=self.out):
            console.print(f"wrote {path}")


@dataclass(frozen=True)
class List:
    """Show every task distribution, its presets and dimensions."""

    def __call__(self, console: Console) -> None:
        found = Table(title="task distributions")
        for column in ("task", "preset", "observation", "action", "horizon", "ends early", "success"):
            found.add_column(column)
        for name, cls in sorted(TASKS.items()):
            for position, (preset, task) in enumerate(cls.presets.items()):
                spec = task.spec
                numbers = (str(spec.obs_dim), str(spec.action_dim), str(spec.horizon))
                flags = ("yes" if spec.terminates else "no", "defined" if spec.has_success else "-")
                found.add_row(name if position == 0 else "", preset, *numbers, *flags)
        console.print(found)


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
