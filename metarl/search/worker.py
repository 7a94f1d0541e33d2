"""One of any number of processes that work on a search: whatever it finds undone and unlocked, it does.

What is to be done follows from the journal and the run folders alone. A worker holds the lock of the run it trains, as
any run does; the system drops it when the worker dies, and the run goes on from its checkpoint in whoever looks next.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment
from metarl.runs.files import write_whole
from metarl.runs.folder import RunExists, create_run
from metarl.runs.lock import InUse, run_lock
from metarl.runs.session import execute
from metarl.runs.study_folders import read_progress
from metarl.search.dimensions import Space, Value
from metarl.search.halving import Stage, rung_lengths, stage
from metarl.search.journal import Journal, number_of_cohort, values_of
from metarl.search.settings import Settings
from metarl.types import Metrics, remembers

POLL = 1.0  # seconds that a worker without a run waits for others


class Job(NamedTuple):
    """A run and the rung it is to reach."""

    trial: int
    run: Path
    experiment: Experiment
    """With the rung's iterations."""


@dataclass
class Search:
    """A search as its folder records it."""

    folder: Path
    start: Experiment
    """What is varied; its iterations are the last rung's."""
    space: Space
    settings: Settings
    initial: dict[str, Value]
    """The values of the space that ``start`` has."""
    build: Callable[[dict[str, Value]], Experiment]
    """Makes the experiment of a trial, or refuses."""
    fits: Callable[[str, dict[str, Value]], bool]
    """Whether a name means anything beside the values chosen before it."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.locked():
            self.journal = Journal(self.folder)
            self.journal.require_same(self.description())

    @property
    def rungs(self) -> tuple[int, ...]:
        return rung_lengths(self.start.iterations, self.settings.rungs, self.settings.keep)

    @property
    def objective(self) -> str:
        usual = "meta_train/return_trial" if remembers(self.start.learner) else "meta_train/return_post"
        return self.settings.objective or usual

    def description(self) -> dict[str, Any]:
        """What has to be the same for all who join."""
        free = set(CHANGEABLE) - {"iterations", "num_threads"}  # threads decide bits
        fixed = {f"experiment.{name}": x for name, x in leaves(to_json(self.start)).items() if name not in free}
        return leaves(to_json(self.settings)) | {f"vary {name}": repr(dim) for name, dim in self.space.items()} | fixed

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Held for moments, while trials are proposed and compared.

        Raises:
            ValueError: the file system has no locks.
        """

        def refuse(why: str) -> None:
            raise ValueError(f"{why}; a search needs a file system with locks, choose another folder with --runs")

        while True:
            try:
                with run_lock(self.folder, refuse):
                    yield
                    return
            except InUse:
                time.sleep(0.05)

    def experiment_of(self, trial: Any, seed: int) -> Experiment:
        return replace(self.build(values_of(trial, self.space)), seed=self.start.seed + seed)

    def run_of(self, trial: int, seed: int) -> Path:
        return self.folder / f"trial-{trial:04d}-seed{self.start.seed + seed}"

    def runs_of(self, trial: int) -> list[Path]:
        return [self.run_of(trial, seed) for seed in range(self.settings.trial_seeds)]

    def env_steps(self) -> int:
        """Of all runs so far."""
        rows = [read_progress(run) for trial in self.journal.trials() for run in self.runs_of(trial.number)]
        return sum(int(row[-1]["env_steps"]) for row in rows if row)

    def value(self, trial: Any, rung: int) -> float | None:
        """The objective of a trial at a rung; None while it has not reached it, -inf where it diverged."""
        if "diverged" in trial.user_attrs:
            return -math.inf
        found = [read_progress(run) for run in self.runs_of(trial.number)]
        if any(len(rows) < rung for rows in found):
            return None
        values = []
        for rows in found:
            if self.objective not in rows[0]:
                known = ", ".join(name for name in rows[0] if name.startswith("meta_"))
                raise ValueError(f"objective is {self.objective!r}: progress.csv has {known}")
            recent = [float(x) for row in rows[:rung] if (x := row[self.objective])][-self.settings.last :]
            values.append(sum(recent) / len(recent) if recent else -math.inf)
        mean = sum(values) / len(values)
        return mean if mean == mean else -math.inf

    def advance(self) -> list[Job] | None:
        """Compares what can be compared, and proposes what comes next; call it with the search locked.

        Returns:
            The runs that are to be trained now; None once the search is complete.
        """
        while True:
            trials = self.journal.trials()
            cohorts = [cohort for trial in trials if (cohort := number_of_cohort(trial)) is not None]
            cohort = max(cohorts, default=0)
            asked = sum(one < cohort for one in cohorts)
            size = min(self.settings.cohort, self.settings.trials - asked)
            if cohorts.count(cohort) < size:  # none yet, or its proposer died
                self._propose(cohort, size)
                if len(self.journal.trials()) == len(trials):
                    return None
                continue
            current = {trial.number: trial for trial in trials if number_of_cohort(trial) == cohort}
            found = self._stage(current)
            if found.rung < len(self.rungs):
                return self._jobs(current, found)
            enough = self.settings.max_env_steps is not None and self.env_steps() >= self.settings.max_env_steps
            if asked + size >= self.settings.trials or enough:
                return None
            self._propose(cohort + 1, min(self.settings.cohort, self.settings.trials - asked - size))

    def _propose(self, cohort: int, size: int) -> None:
        arguments = (self.space, self.settings, self.start.seed, self.initial, self.build, self.fits)
        self.journal.propose(cohort, size, *arguments)

    def _stage(self, current: dict[int, Any]) -> Stage:
        """Where a cohort stands, noted in the journal."""
        while True:
            known: dict[int, list[float]] = {
                number: [trial.intermediate_values[rung] for rung in self.rungs if rung in trial.intermediate_values]
                for number, trial in current.items()
            }
            found = stage(known, len(self.rungs), self.settings.keep)
            new = {}
            if found.rung < len(self.rungs):
                rung = self.rungs[found.rung]
                missing = [number for number in found.training if len(known[number]) <= found.rung]
                new = {n: value for n in missing if (value := self.value(current[n], rung)) is not None}
                for number, value in new.items():
                    self.journal.report(number, rung, value)
            for number, trial in current.items():
                if number not in found.training and not trial.state.is_finished():
                    self.journal.end(number, complete=number in found.finished)
            if not new:
                return found
            trials = self.journal.trials()
            current.update({number: trials[number] for number in current})

    def _jobs(self, current: dict[int, Any], found: Stage) -> list[Job]:
        rung = self.rungs[found.rung]
        waiting = [current[number] for number in found.training if rung not in current[number].intermediate_values]
        return [
            Job(trial.number, run, replace(self.experiment_of(trial, seed), iterations=rung))
            for trial in waiting
            for seed, run in enumerate(self.runs_of(trial.number))
            if len(read_progress(run)) < rung
        ]


def work(search: Search, console: Console, *, hours: float | None = None) -> int:
    """Trains what there is to train until the search is complete.

    Args:
        hours: of this process; then it ends with a checkpoint, and the same command goes on.

    Returns:
        The exit code: 0, 128 + the signal's number when stopped by it, 75 (try again) where the hours are over.
    """
    deadline = math.inf if hours is None else time.monotonic() + 3600 * hours
    waiting = False
    while True:
        with search.locked():
            jobs = search.advance()
        if jobs is None:
            return 0
        trained = False
        for job in jobs:
            if time.monotonic() >= deadline:
                return 75
            try:
                code = train(search, job, console, deadline)
            except InUse:
                continue
            if code:
                return code
            trained = True
            break
        if not trained:
            if not waiting:
                console.print("every run of this rung is in another worker's hands: waiting for them")
            wait()
        waiting = not trained


def wait() -> None:
    """For others, who hold every run that is left."""
    time.sleep(POLL)


def train(search: Search, job: Job, console: Console, deadline: float) -> int:
    """Brings a run to its rung; one that diverges is noted in the journal."""
    with suppress(RunExists):
        create_run(job.experiment, job.run.parent, job.run.name)

    def over(iteration: int, metrics: Metrics) -> bool:
        return time.monotonic() >= deadline

    try:
        code = execute(job.experiment, job.run, console=Console(quiet=True), callbacks=[over])
        console.print(f"trial {job.trial}: {len(read_progress(job.run))} iterations of {search.rungs[-1]}, {job.run}")
        return code
    except FloatingPointError as error:
        console.print(f"trial {job.trial} diverged: {error}")
        with search.locked():
            search.journal.mark(job.trial, "diverged", str(error))
        return 0
    except InUse:
        raise
    except ValueError:
        if len(read_progress(job.run)) < job.experiment.iterations:
            raise
        return 0  # another worker took it farther meanwhile


def write_description(search: Search) -> None:
    """``search.json``: what the search is, for people."""
    write_whole(search.folder / "search.json", json.dumps(search.description(), indent=2).encode() + b"\n")
