"""The run folders of a study: which there are, how far each run is, and what is kept of it.

They are ordinary run folders; one belongs to a row where its ``config.json`` says the same experiment, whatever it is
called, so that runs by hand count, too.
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from metarl.runs import checkpoint
from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment
from metarl.runs.files import read_file, write_whole
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.recorded import read_progress
from metarl.runs.selection import stopped_early
from metarl.runs.studies import Row, Study
from metarl.runs.versions import recorded_commit

MARK = "study.json"  # in a run folder: which evaluation is the study's, and the options it was made with
EVALUATION = re.compile(r"evaluation(-\d{1,9})?\.json")
MOST_BYTES = 1 << 30  # of an evaluation


class StudyRun(NamedTuple):
    """A row at one seed."""

    row: Row
    seed: int
    folder: Path
    """Its run folder, which may not be there yet."""

    @property
    def name(self) -> str:
        return run_name(self.row, self.seed)

    @property
    def experiment(self) -> Experiment:
        return replace(self.row.experiment, seed=self.seed)


class Standing(NamedTuple):
    """How far a run is."""

    total: int
    """Iterations of the whole run."""
    iterations: int
    """Recorded in ``progress.csv``."""
    saved: int
    """Of the newest checkpoint."""
    env_steps: int
    progress: list[dict[str, str]]
    """The rows of ``progress.csv``."""
    evaluation: dict[str, Any] | None
    """The study's ``evaluation.json`` of the finished run."""
    commit: str | None
    """Git commit that began the run."""
    stopped: bool = False
    """Validation ended it early: it is complete."""

    @property
    def done(self) -> bool:
        return self.evaluation is not None

    @property
    def trained(self) -> bool:
        return self.saved >= self.total or self.stopped

    def describe(self) -> str:
        """One of: finished, to be evaluated, 14 of 100 iterations, not begun."""
        if self.done:
            return "finished"
        if self.trained:
            return "to be evaluated"
        return f"{self.iterations} of {self.total} iterations" if self.iterations else "not begun"


def run_name(row: Row, seed: int) -> str:
    return f"{row.name}-seed{seed}"


def plan(study: Study, runs: Path, num_seeds: int) -> list[StudyRun]:
    """Every run of a study, all seeds of a row before the next row.

    Raises:
        ValueError: a folder that has a run's name and is another experiment.
    """
    found = []
    folders = sorted(path.parent for path in runs.glob("*/config.json"))
    by_settings = {settings: folder for folder in folders if (settings := _recorded(folder)) is not None}
    for row in study.rows:
        for seed in range(num_seeds):
            run = StudyRun(row, seed, runs / run_name(row, seed))
            wanted = settings_of(run.experiment)
            if run.folder.exists() and (settings := _recorded(run.folder)) != wanted:
                raise ValueError(f"{run.folder} is another experiment ({_difference(settings, wanted)}): rename it")
            found.append(run if run.folder.exists() else run._replace(folder=by_settings.get(wanted, run.folder)))
    return found


Settings = tuple[tuple[str, str], ...]


def settings_of(experiment: Experiment) -> Settings:
    """What makes an experiment: every field but those that change no result, or may change on resume."""
    skipped = ("preset", "eval_tasks", *CHANGEABLE)
    return tuple(sorted((name, repr(x)) for name, x in leaves(to_json(experiment)).items() if name not in skipped))


def _recorded(folder: Path) -> Settings | None:
    try:
        return settings_of(load_experiment(folder, device="cpu"))
    except ValueError:
        return None


def _difference(found: Settings | None, wanted: Settings) -> str:
    known = dict(found or ())
    return next(
        (f"{name} is {known.get(name)}, the row has {value}" for name, value in wanted if known.get(name) != value),
        "it has fields of its own",
    )


def begin(run: StudyRun) -> None:
    """Makes the run folder, where there is none; ``metarl train --resume`` then begins or continues it."""
    if not run.folder.exists():
        create_run(run.experiment, run.folder.parent, run.folder.name)


def standing(run: StudyRun, collected: Path | None = None) -> Standing:
    """How far a run is, by its folder or else by what was collected of it."""
    folder = run.folder
    if collected is not None and not folder.exists():
        folder = collected / run.name
        if folder.exists() and _recorded(folder) != settings_of(run.experiment):
            folder = run.folder  # what was collected is of settings that the row had once
    progress = read_progress(folder)
    names = [checkpoint.NAME.fullmatch(path.name) for path in (folder / checkpoint.DIRECTORY).glob("*")]
    evaluation = _evaluation(folder, run.row)
    saved, total = max([int(name[1]) for name in names if name], default=0), run.row.experiment.iterations
    stopped = stopped_early(run.row.experiment, progress)
    protocol = {} if evaluation is None else evaluation["protocol"]
    tested = protocol.get("iterations_of_run", protocol.get("iterations", 0))
    if tested < (min(total, len(progress)) if stopped else total):
        evaluation = None  # of a shorter run, which goes on
    else:
        saved = max(saved, tested)  # its checkpoints may be gone
    env_steps = int(progress[-1]["env_steps"]) if progress else 0
    return Standing(total, len(progress), saved, env_steps, progress, evaluation, recorded_commit(folder), stopped)


def _evaluation(folder: Path, row: Row) -> dict[str, Any] | None:
    """The study's own, where it is whole; the mark can name no file of another folder."""
    try:
        mark = json.loads(read_file(folder / MARK, MOST_BYTES))
        if not EVALUATION.fullmatch(mark["evaluation"]) or mark["options"] != list(row.evaluate):
            return None
        record: dict[str, Any] = json.loads(read_file(folder / mark["evaluation"], MOST_BYTES))
        counts = (record["protocol"].get(name, 0) for name in ("iterations", "iterations_of_run"))
        return record if all(type(count) is int for count in counts) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def mark_evaluation(run: StudyRun) -> None:
    """Notes that the newest ``evaluation*.json`` of a run is the study's.

    Raises:
        ValueError: there is none.
    """
    files = sorted(run.folder.glob("evaluation*.json"), key=lambda path: path.stat().st_mtime_ns)
    if not files:
        raise ValueError(f"{run.folder} has no evaluation.json")
    mark = {"evaluation": files[-1].name, "options": list(run.row.evaluate)}
    write_whole(run.folder / MARK, json.dumps(mark).encode() + b"\n")


def collect(run: StudyRun, results: Path) -> bool:
    """Copies what the table needs of a finished run, without raw returns, so that it can be kept in a repository."""
    if not run.folder.exists() or (evaluation := standing(run).evaluation) is None:
        return False
    copy = results / run.name
    copy.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "versions.json", "progress.csv"):
        write_whole(copy / name, read_file(run.folder / name, MOST_BYTES))
    write_whole(copy / "evaluation.json", json.dumps(without_raw(evaluation)).encode() + b"\n")
    mark = {"evaluation": "evaluation.json", "options": list(run.row.evaluate)}
    write_whole(copy / MARK, json.dumps(mark).encode() + b"\n")
    return True


RAW = ("returns", "solved_after", "tasks", "labels", "solved_at_end", "solved_share")


def without_raw(record: Any) -> Any:
    """``evaluation.json`` without numbers by task and episode; published returns, by method, stay."""
    if not isinstance(record, dict):
        return record
    return {key: without_raw(value) for key, value in record.items() if not (key in RAW and isinstance(value, list))}
