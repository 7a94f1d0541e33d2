"""``metarl tune``: a search around an experiment, by as many processes as are started with the same command."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic

import tyro
from rich.console import Console

from metarl import presets
from metarl.algorithms import learner_name
from metarl.catalogue import option_name
from metarl.cli.parse import parse, without
from metarl.cli.train import FLAT, choose_all, describe, require_distinct_names, start_of
from metarl.cli.variation import Variation, all_options, ordered, picked_parts, train_command
from metarl.presets import spaces
from metarl.runs.experiment import Experiment, LearnerT, TaskT
from metarl.runs.folder import RUN_NAME
from metarl.runs.stopping import StopOnSignal, Stopped
from metarl.runs.supervised import FewShotExperiment
from metarl.search import dimensions
from metarl.search.dimensions import Dimension
from metarl.search.journal import best_first
from metarl.search.results import best_table, draw, importances, write_csv
from metarl.search.settings import Settings
from metarl.search.worker import Search, work, write_description
from metarl.train import scheduled


@dataclass(frozen=True)
class Tune(Generic[TaskT, LearnerT]):
    """Search for settings; one that is given on the command line keeps its value."""

    experiment: tyro.conf.OmitArgPrefixes[Experiment[TaskT, LearnerT]]
    search: tyro.conf.OmitArgPrefixes[Settings]
    task: tyro.conf.Positional[str] = ""
    """Task distribution (metarl list shows them)."""
    learner: str = ""
    """Meta-learner (metarl list shows them)."""
    task_preset: str = ""
    """Definition of the task, by the work that published it, in place of the experiment preset's."""
    runs: Path = Path("runs")
    """Folder in which the search's folder is made."""
    name: str | None = None
    """Name of the search's folder; by default tune, learner, task and preset. Whoever sees it joins by the command."""
    space: str = ""
    """What is varied, by a name in metarl/presets/spaces.py; by default the learner's."""
    vary: tuple[str, ...] = ()
    """More of it, or otherwise: inner_lr=0.01:1:log epochs=2:10 outer=trpo,ppo hidden_sizes=64x64,100x100; discount=
    varies it no longer."""
    hours: float | None = None
    """This process ends after so long, with a checkpoint and exit code 75; the same command goes on."""
    jobs: int = 1
    """Processes to start here; more may join from anywhere that sees the folder."""
    show: bool = False
    """Train nothing: the table and the plot of what is there."""
    code: Path | None = None
    """Python file that defines the task, where it is none of this library's; it is run."""


def tune(arguments: Sequence[str], task: str | None) -> int:
    """Searches as the arguments of ``metarl tune`` say; returns the exit code.

    Raises:
        ValueError: an argument that cannot work, or that differs from the search to join.
    """
    given, begun = list(arguments), start_of(arguments, task, None)
    require_distinct_names(begun)
    chosen, arguments = choose_all(begun.learner, arguments)
    start = replace(begun, learner=chosen)
    form: Any = Tune[type(start.task), type(start.learner)]  # type: ignore[misc]
    quiet = replace(start, eval_interval=0)  # a test in training changes nothing but costs time
    default = form(experiment=quiet, search=Settings(), task=start.task.name, learner=learner_name(type(start.learner)))
    about = describe(start).replace("Trains", "Searches for settings of", 1)
    words = [start.task.name, *arguments]
    options = parse(form, words, default=default, prog="metarl tune", description=about, config=FLAT)
    search = search_of(options, start, given)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    code = 0
    if not options.show:
        write_description(search)
        same = [start.task.name, *without("--jobs", given)]
        code = work(search, console, hours=options.hours) if options.jobs == 1 else work_in(options.jobs, same, search)
    report(search, start, console)
    return code


def search_of(options: Tune, start: Experiment, given: Sequence[str]) -> Search:
    """The search that the options mean.

    Raises:
        ValueError: a bad name, nothing to vary, or a space that is not known.
    """
    learner = learner_name(type(start.learner))
    name = options.name or f"tune-{learner}-{start.task.name}-{start.preset or 'default'}"
    if not RUN_NAME.fullmatch(name):
        raise ValueError(f"name is {name!r}: use up to 80 letters, digits, '.', '_' and '-', a letter or digit first")
    if options.space and not spaces.find(options.space):
        raise ValueError(f"space is {options.space!r}: use one of {', '.join(spaces.SPACES)}")
    if options.jobs < 1:
        raise ValueError(f"jobs is {options.jobs}: use at least 1")
    experiment = options.experiment
    if not isinstance(experiment, FewShotExperiment):  # whose learners have no schedule
        annealing = scheduled(experiment.learner, experiment.iterations)  # over the last rung, not over each
        experiment = replace(experiment, learner=annealing)
    kept = {option_name(argument) for argument in given}
    kinds = all_options(experiment)
    found: dict[str, Dimension] = {
        key: dimension
        for key, dimension in spaces.find(options.space or learner).items()
        if key in kinds and f"--{key.replace('_', '-')}" not in kept
    }
    for text in options.vary:
        key, dimension = dimensions.parse(text, kinds)
        found.pop(key, None)
        if dimension is not None:
            found[key] = dimension
    variation = Variation(experiment)
    fixed = found.keys().isdisjoint(picked_parts(experiment))  # else what there is to vary depends on the trial
    space = {
        key: dimension for key, dimension in ordered(found, experiment).items() if not fixed or variation.fits(key, {})
    }
    if not space:
        raise ValueError(f"there is nothing to vary: name something with --vary, one of {', '.join(sorted(kinds))}")
    initial = variation.initial(space)
    return Search(options.runs / name, experiment, space, options.search, initial, variation.build, variation.fits)


def work_in(jobs: int, arguments: Sequence[str], search: Search) -> int:
    """Works in so many processes, each with a log in the search's folder; returns the first exit code that is not 0."""
    children = []
    with StopOnSignal() as stopping:
        try:
            with stopping.postponed():
                for number in range(jobs):
                    log = open(search.folder / f"worker-{number}.log", "ab")  # noqa: SIM115
                    command = [sys.executable, "-m", "metarl", "tune", *arguments]
                    children.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
            for child in children:
                child.wait()
        except Stopped:
            for child in children:
                child.send_signal(signal.SIGTERM)
            for child in children:
                child.wait()
            return 128 + (stopping.signal or signal.SIGTERM)
    codes = [child.returncode for child in children if child.returncode]
    if codes:
        print(f"a worker ended with exit code {codes[0]}: {search.folder}/worker-*.log say why", file=sys.stderr)
    return codes[0] if codes else 0


def report(search: Search, preset: Experiment, console: Console) -> None:
    """The best trials, what was written, and the command that trains the best anew."""
    trials = best_first(search.journal.trials())
    if not trials:
        console.print(f"{search.folder} has no trial that reached a rung yet")
        return
    console.print(best_table(search))
    shares = importances(search)
    if shares:
        said = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda x: -x[1]))
        console.print(f"importance at iteration {search.rungs[0]}: {said}")
    written = [path for path in (write_csv(search), draw(search)) if path is not None]
    total = search.env_steps()
    console.print(f"wrote {', '.join(map(str, written))}; {len(trials)} trials took {total / 1e6:.1f}M env steps")
    best = search.experiment_of(trials[0], 0)
    known = presets.make(best.task.name, learner_name(type(best.learner)), best.preset or None)
    console.print(f"best, trial {trials[0].number}: {train_command(best, known)}")
