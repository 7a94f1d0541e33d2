"""The verbs of ``metarl`` as dataclasses: their fields are the options."""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from rich.console import Console

from metarl import catalogue
from metarl.cli.parse import parse, value_of
from metarl.cli.train import train
from metarl.envs.camera import find_backend
from metarl.envs.registry import find_preset
from metarl.films.video import render_run
from metarl.reports.evaluate_run import Protocol, evaluate_run
from metarl.reports.figures import learning_curves
from metarl.runs.code import run_code
from metarl.runs.process import ended_by_signals, errors_in_one_sentence, prepare_process


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
    out: Path | None = None
    """Folder to write the evaluation to; by default the run's own."""
    full: bool = False
    """Show spread over tasks and interquartile means, too; evaluation.json always has them."""
    code: Path | None = None
    """Python file that defines the run's task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        evaluate_run(
            self.run,
            self.protocol,
            pretrain_iterations=self.pretrain_iterations,
            console=console,
            device=self.device,
            out=self.out,
            full=self.full,
        )


@dataclass(frozen=True)
class Plot:
    """Draw learning curves of runs, a panel for each task and tag; runs that differ only in their seed share a line."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    tag: tuple[str, ...] = ("meta_train/return_post", "meta_train/accuracy_post", "meta_train/loss_post")
    """Columns of progress.csv, those of them that a run has. Of learners that remember: meta_train/return_trial."""
    out: Path = Path("curves.png")
    """The picture to write."""
    code: Path | None = None
    """Python file that defines the runs' task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
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
    """Python file that defines the run's task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        for path in render_run(self.run, task_index=self.task, adapt_steps=self.steps, out=self.out):
            console.print(f"wrote {path}")


@dataclass(frozen=True)
class List:
    """Show every task distribution with its dimensions, the learners, and the presets."""

    code: Path | None = None
    """Python file that defines more tasks; it is run."""

    def __call__(self, console: Console) -> None:
        from metarl.cli.describe import describe

        print(catalogue.table(describe()))


@dataclass(frozen=True)
class Doctor:
    """Check this machine: versions, threads, GPU, rendering, physics speed."""

    def __call__(self, console: Console) -> None:
        names = ("metarl-toolkit", "torch", "mujoco", "gymnasium", "numpy", "tensorboard")
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


VERBS = {"evaluate": Evaluate, "plot": Plot, "video": Video, "list": List, "doctor": Doctor}


def run(arguments: Sequence[str], known: dict[str, Any] | None) -> int:
    """Does what the arguments of ``metarl`` say; returns the exit code.

    Args:
        known: the catalogue, where the names among the arguments have been looked up in it.
    """
    from metarl.cli.describe import describe  # which asks for the verbs

    verb, rest = arguments[0], arguments[1:]
    with errors_in_one_sentence(), ended_by_signals():
        if (code := value_of("--code", rest)) is not None:
            run_code(Path(code))
        if known is None:
            known = describe()
            if (mistake := catalogue.mistake(verb, rest, known)) is not None:
                raise ValueError(mistake)
        if verb == "train":
            position, _ = catalogue.named(rest, known)
            task = None if position is None else rest[position]
            return train([argument for here, argument in enumerate(rest) if here != position], task)
        chosen = parse(VERBS[verb], rest, prog=f"metarl {verb}")
        prepare_process(num_threads=0)
        chosen(Console(markup=False, soft_wrap=not sys.stdout.isatty()))
    return 0
