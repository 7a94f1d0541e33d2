"""The command of a file in ``experiments/``: runs what is missing of a study, and writes its table and its plot."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console

from metarl.cli.parse import parse
from metarl.cli.study_progress import StudyProgress
from metarl.envs.fields import require
from metarl.reports.figures import learning_curves
from metarl.reports.study_table import as_csv, lines, markdown, millions, screen
from metarl.runs.experiment import Experiment
from metarl.runs.pace import measured_rate
from metarl.runs.process import errors_in_one_sentence
from metarl.runs.recorded import recorded_rate
from metarl.runs.status import clock
from metarl.runs.studies import NO_COMPARISON, Study, env_steps
from metarl.runs.study_folders import Standing, StudyRun, collect, plan, standing
from metarl.runs.study_work import Work, work_off
from metarl.types import remembers

WIDTH = 200  # of a table that is written where no terminal is

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    only: tuple[str, ...] = ()
    """Rows to run and to show, by name; * is anything."""
    seeds: int = 3
    """Runs of each row, with the seeds 0, 1, 2 ..."""
    jobs: int = 1
    """Runs at a time, each a process."""
    num_threads: int = 0
    """CPU threads of each; 0: the cores, shared out."""
    device: str | None = None
    """Of every run and its test, such as cuda or cuda:1; several jobs share it. None: of a run that was begun its own,
    else the row's, which is the CPU."""
    runs: Path | None = None
    """Folder of the run folders and of the table; by default runs/ and the study's name. A run in it that has a row's
    settings counts, whatever it is called."""
    dry_run: Flag = False
    """Say what would run, how many environment steps that is and how long it takes, and end."""
    table: Flag = False
    """Run nothing: write the table and the plot of what is there."""
    collect: Flag = False
    """Run nothing: copy what the table needs of finished runs to results/, beside the study's file."""
    smoke: Flag = False
    """Tiny settings and one seed, in a folder of their own: tries the whole path in about a minute."""

    def __post_init__(self) -> None:
        require(self, "seeds", "jobs", at_least=1)
        require(self, "num_threads", at_least=0)

    @property
    def threads(self) -> int:
        """CPU threads of each process."""
        return self.num_threads or max(1, (os.cpu_count() or 1) // self.jobs)


def main(study: Study, file: str, arguments: Sequence[str] | None = None) -> None:
    """Runs a study as its file's command line says, and exits.

    Args:
        file: the study's file; ``results/`` beside it holds what was recorded earlier.
    """
    terminal = sys.stdout.isatty()
    with errors_in_one_sentence():
        names = ", ".join(row.name for row in study.rows)
        about = f"{study.title}. Rows: {names}. Runs what is missing, evaluates it, and writes the table and the plot."
        default, prog = Options(seeds=study.seeds), f"python {os.path.relpath(file)}"
        options: Options = parse(Options, arguments, default=default, prog=prog, description=about)
        console = Console(highlight=False) if terminal else Console(highlight=False, width=WIDTH)
        sys.exit(run(study, options, Path(file).parent / "results", console))


def run(study: Study, options: Options, results: Path, console: Console) -> int:
    """Does what the options ask for; returns the exit code."""
    study = on_device(study.only(options.only), options.device)
    if options.smoke:
        study, options = smoke(study), replace(options, seeds=1, jobs=max(options.jobs, os.cpu_count() or 1))
    folder = options.runs or Path("runs") / study.name
    runs = plan(study, folder, options.seeds)
    kept = results / study.name
    if options.dry_run:
        announce([(one, standing(one, kept)) for one in runs], options, console)
        return 0
    if options.collect:
        for one in runs:
            found = collect(one, kept)
            said = f"copied to {kept / one.name}" if found else standing(one).describe()
            console.print(f"{one.name}: {said}", markup=False)
        return 0
    code = 0
    if not options.table:
        missing = [one for one in runs if not standing(one, kept).done]
        console.print(f"{len(missing)} of {len(runs)} runs to do, {options.jobs} at a time, in {folder}", markup=False)
        work = Work(missing, options.threads, options.device)
        with StudyProgress(work, console) as progress:
            code = work_off(work, options.jobs, progress.show)
        for name, reason in work.failed.items():
            console.print(f"failed: {name}: {reason}", markup=False)
        if code > 1:
            console.print("stopped; the same command continues", markup=False)
    write(study, [(one, standing(one, kept)) for one in runs], folder, results, console)
    return code


def write(study: Study, runs: list[tuple[StudyRun, Standing]], folder: Path, results: Path, console: Console) -> None:
    """The table on the screen, in Markdown and as CSV, and the learning curves."""
    found = lines(study, runs, results / f"{study.name}.csv")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(study, found))
    (folder / "table.csv").write_text(as_csv(study, found))
    console.print(screen(study, found))
    written = f"wrote {folder / 'table.md'}, {folder / 'table.csv'}"
    kept = results / study.name
    drawn = [
        run.folder if run.folder.exists() else kept / run.name
        for run, state in runs
        if any(row.get(tag) for row in state.progress for tag in study.tags)
    ]
    if drawn:
        learning_curves(drawn, folder / "curves.png", tags=study.tags)
        written += f", {folder / 'curves.png'}"
    console.print(written, markup=False)


def announce(runs: Sequence[tuple[StudyRun, Standing]], options: Options, console: Console) -> None:
    """What a run of the study would do, without doing it."""
    rates: dict[str, tuple[float, str]] = {}
    for run, state in runs:
        if (rate := recorded_rate(state.progress)) is not None and run.folder.exists():
            rates[run.row.name] = rate, f"recorded by {run.name}"
    total_steps, total_seconds = 0.0, 0.0
    for run, state in runs:
        whole = env_steps(run.row.experiment)
        left = 0.0 if state.trained else whole * (1 - state.saved / state.total)
        line = f"{run.name}: {state.describe()}"
        if left:
            if run.row.name not in rates:
                rates[run.row.name] = (
                    measured_rate(run.experiment, options.threads),
                    "measured now, one short iteration",
                )
            rate, source = rates[run.row.name]
            line += f"; {millions(left)} env steps, about {clock(left / rate)} ({rate:,.0f} a second, {source})"
            total_steps, total_seconds = total_steps + left, total_seconds + left / rate
        console.print(line, markup=False)
    num_runs = sum(not state.done for _, state in runs)
    console.print(
        f"{num_runs} of {len(runs)} runs to do: {millions(total_steps) or 'no'} env steps, about "
        f"{clock(total_seconds / options.jobs)} with {options.jobs} at a time, {options.threads} thread(s) each; "
        "on a machine as busy as now; tests of the trained policies come on top",
        markup=False,
    )


def on_device(study: Study, device: str | None) -> Study:
    """The study with rows that run on a device; the very same one for None.

    Raises:
        BadField: there is no such device here.
    """
    if device is None:
        return study
    return replace(
        study, rows=tuple(replace(row, experiment=replace(row.experiment, device=device)) for row in study.rows)
    )


def smoke(study: Study) -> Study:
    """The study in miniature, without what was published, in which no number means anything."""
    rows = tuple(
        replace(
            row,
            experiment=tiny(row.experiment),
            reported=(),
            evaluate=("--tasks", "2", *NO_COMPARISON),
        )
        for row in study.rows
    )
    title = f"SMOKE TEST, tiny settings, numbers without meaning: {study.title}"
    return replace(study, name=f"{study.name}-smoke", title=title, rows=rows)


def tiny(experiment: Experiment) -> Experiment:
    """Two iterations of a few short episodes."""
    worlds = 1 if remembers(experiment.learner) else max(2, experiment.learner.describe().num_policies)
    return replace(
        experiment,
        task=replace(experiment.task, horizon=min(10, experiment.task.horizon)),
        num_tasks=10,
        num_envs=worlds,
        episodes=max(2, worlds),
        iterations=2,
        checkpoint_interval=1,
        eval_interval=0,
        eval_tasks=1,
    )
