"""The verbs of ``metarl`` as dataclasses: their fields are the options."""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from rich.console import Console

from metarl import catalogue
from metarl.cli.evaluate import Evaluate
from metarl.cli.export import Export
from metarl.cli.parse import parse, values_of
from metarl.cli.probe import Probe
from metarl.cli.train import train
from metarl.cli.tune import tune
from metarl.cli.warmup import Warmup
from metarl.cli.watch import Watch
from metarl.envs.camera import find_backend
from metarl.envs.fields import require
from metarl.envs.registry import find_preset
from metarl.extensions import load_installed
from metarl.films.video import render_run
from metarl.reports.figures import learning_curves
from metarl.reports.gathering import Measure
from metarl.reports.report import write_report
from metarl.runs.code import run_code
from metarl.runs.folder import load_experiment
from metarl.runs.jobs import Cluster, submit
from metarl.runs.process import ended_by_signals, errors_in_one_sentence, prepare_process
from metarl.runs.recorded import read_progress
from metarl.runs.tracking import Tracker

WIDTH = 200  # of tables where no terminal is


@dataclass(frozen=True)
class Plot:
    """Draw learning curves of runs, a panel for each task and tag; runs that differ only in their seed share a line."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders."""
    tag: tuple[str, ...] = ("meta_train/return_post", "meta_train/accuracy_post", "meta_train/loss_post")
    """Columns of progress.csv, those of them that a run has. Of learners that remember: meta_train/return_trial."""
    band: Literal["interval", "range"] = "interval"
    """Band of a line: 95 % bootstrap interval of the mean over runs at each step, or from lowest to highest run. Runs
    that logged at other env steps are interpolated linearly between their own points, as far as all of them go."""
    smooth: int = 0
    """Average each point with its run's points in so many env steps before it; 0: none. The axis says so."""
    published: bool = False
    """Draw published end points of exactly these tasks and this much adaptation."""
    beside: Path | None = None
    """CSV file of other curves to draw: columns label, env_steps, value, and perhaps task, the title of a panel."""
    out: Path = Path("curves.png")
    """The picture to write."""
    code: Path | None = None
    """Python file that defines the runs' task, learner or policy, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        require(self, "smooth", at_least=0)
        learning_curves(
            list(self.runs),
            self.out,
            tags=self.tag,
            interval=self.band == "interval",
            smooth=self.smooth,
            published=self.published,
            beside=self.beside,
        )
        console.print(f"wrote {self.out}")


@dataclass(frozen=True)
class Report:
    """Compare evaluated runs over seeds: means, interquartile means, intervals, profiles, probability of improvement.

    Runs that differ in nothing but their seed are a line of the table.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run folders, or folders of run folders; those that are not evaluated, unfinished or broken are left out."""
    measure: Measure = "auto"
    """return; success, of greedy episodes at their end; or auto, success where the task defines it."""
    step: int | None = None
    """Inner step, or episode of a trial whose success counts, from 0; by default the last one tested."""
    by_task: bool = False
    """Resample the runs of each held-out task by themselves, as if tasks shared no run: too narrow an interval."""
    out: Path = Path("report")
    """Folder to write report.md, report.csv, report.tex and profiles.png to."""
    code: Path | None = None
    """Python file that defines the runs' task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        wide = console if console.is_terminal else Console(markup=False, width=WIDTH)
        write_report(list(self.runs), self.out, wide, measure=self.measure, step=self.step, by_task=self.by_task)


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
    checkpoint: str = "last"
    """Which state to film: last, best, by validation; or the number of an iteration that the run keeps."""
    code: Path | None = None
    """Python file that defines the run's task, learner or policy, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        for path in render_run(
            self.run, task_index=self.task, adapt_steps=self.steps, out=self.out, checkpoint=self.checkpoint
        ):
            console.print(f"wrote {path}")


@dataclass(frozen=True)
class Track:
    """Mirror a run folder to Weights & Biases: settings, metrics, evaluation, plots and videos that are there."""

    run: tyro.conf.Positional[Path]
    """Run folder."""
    project: str = "metarl"
    """Project there; a run that is there already keeps its own."""
    code: Path | None = None
    """Python file that defines the run's task, where it is none of this library's; it is run."""

    def __call__(self, console: Console) -> None:
        said: list[str] = []
        tracker = Tracker(load_experiment(self.run, device="cpu"), self.run, said.append, project=self.project)
        tracker.mirror(iter(read_progress(self.run)))
        tracker.close()
        if said:
            raise ValueError(said[0].partition("; the run goes on")[0])
        console.print(f"mirrored {self.run}")


@dataclass(frozen=True)
class Submit:
    """Submit a command, which stands after --, as jobs of a cluster; a preempted job is submitted anew and goes on."""

    where: tyro.conf.OmitArgPrefixes[Cluster]
    command: tyro.conf.Suppress[tuple[str, ...]] = ()

    def __call__(self, console: Console) -> None:
        for job in submit(self.command, self.where):
            console.print(f"submitted {job.job_id}: {job.paths.stdout}")


@dataclass(frozen=True)
class List:
    """Show every task distribution with its dimensions, the learners, and the presets."""

    code: Path | None = None
    """Python file that defines more tasks and learners; it is run."""

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


VERBS = {
    "evaluate": Evaluate,
    "probe": Probe,
    "report": Report,
    "plot": Plot,
    "watch": Watch,
    "video": Video,
    "export": Export,
    "track": Track,
    "submit": Submit,
    "warmup": Warmup,
    "list": List,
    "doctor": Doctor,
}


def run(arguments: Sequence[str], known: dict[str, Any] | None) -> int:
    """Does what the arguments of ``metarl`` say; returns the exit code.

    Args:
        known: the catalogue, where the names among the arguments have been looked up in it.
    """
    from metarl.cli.describe import describe  # which asks for the verbs

    verb, rest = arguments[0], arguments[1:]
    with errors_in_one_sentence(), ended_by_signals():
        if "--code" in rest[-1:]:
            raise ValueError("--code has no value")
        for code in values_of("--code", rest):
            run_code(Path(code))
        load_installed()
        if known is None:
            known = describe()
            if (mistake := catalogue.mistake(verb, rest, known)) is not None:
                raise ValueError(mistake)
        if verb in catalogue.OF_EXPERIMENTS:
            position, _ = catalogue.named(verb, rest, known)
            task = None if position is None else rest[position]
            others = [argument for here, argument in enumerate(rest) if here != position]
            return (train if verb == "train" else tune)(others, task)
        rest, submitted = catalogue.split(verb, rest)
        chosen = parse(VERBS[verb], rest, prog=f"metarl {verb}")
        if verb == "submit":
            chosen = replace(chosen, command=tuple(submitted))
        prepare_process(num_threads=0)
        chosen(Console(markup=False, soft_wrap=not sys.stdout.isatty()))
    return 0
