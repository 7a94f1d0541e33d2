"""What runs earned on held-out tasks, read from their ``evaluation.json`` and grouped over seeds."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from metarl.reports.curves import expand
from metarl.reports.groups import curve_names, panel_names
from metarl.reports.statistics import Scores
from metarl.runs.experiment import Experiment
from metarl.runs.files import read_file
from metarl.runs.folder import load_experiment
from metarl.runs.study_folders import EVALUATION, MOST_BYTES

PROTOCOL = ("num_tasks", "num_episodes", "adaptation_episodes", "min_steps_per_adaptation", "step_size_scales", "steps")
Measure = Literal["auto", "return", "success"]


class Tested(NamedTuple):
    """A run and what it earned."""

    run: Path
    experiment: Experiment
    record: dict[str, Any]
    """``evaluation.json``."""
    measure: str
    """return, or success."""
    before: NDArray[np.float64]
    """Before adaptation [task]."""
    after: NDArray[np.float64]
    """After it [task]."""
    untrained: float
    """Mean of the same before training; NaN where it was not tested."""

    @property
    def protocol(self) -> str:
        """What must be the same in runs that are compared on a task: how they were tested, and on which tasks."""
        protocol = {name: self.record["protocol"].get(name) for name in PROTOCOL}
        return json.dumps([self.measure, protocol, self.record.get("tasks")], sort_keys=True)


class Group(NamedTuple):
    """Runs on one task distribution that differ in nothing but their seed."""

    task: str
    name: str
    runs: list[Tested]
    scores: Scores
    """After adaptation [run, task], without tasks of which some run has no usable episode."""

    @property
    def before(self) -> Scores:
        return np.array([[np.nanmean(one.before)] for one in self.runs])


def gather(runs: Sequence[Path], warn: Callable[[str], None], *, measure: Measure, step: int | None) -> list[Group]:
    """Groups in the order of the runs, those of a task together; what cannot be used costs a sentence to ``warn``.

    Raises:
        ValueError: there is nothing to report.
    """
    found, problems = [], []
    for run in expand(runs):
        try:
            found.append(read(run, measure=measure, step=step))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if not found:
        rest = f" (and {len(problems) - 1} more runs with nothing to report)" if problems[1:] else ""
        raise ValueError((problems[0] if problems else "runs is empty: give at least one run folder") + rest)
    groups = _grouped(found, problems)
    for problem in problems:
        warn(f"left out: {problem}")
    return groups


def _grouped(found: list[Tested], problems: list[str]) -> list[Group]:
    experiments = [one.experiment for one in found]
    tasks, names = panel_names(experiments), curve_names(experiments)
    lengths, chosen = defaultdict(set), defaultdict(set)
    for task, name, one in zip(tasks, names, found, strict=True):
        lengths[task, name].add(one.experiment.iterations)
        chosen[task].add(one.record["protocol"].get("checkpoint", "newest").replace("newest", "last"))
    usual = {
        task: Counter(one.protocol for other, one in zip(tasks, found, strict=True) if other == task).most_common(1)
        for task in tasks
    }
    members: dict[tuple[str, str], list[Tested]] = {}
    for task, name, one in zip(tasks, names, found, strict=True):
        if one.protocol != usual[task][0][0]:
            problems.append(f"{one.run} was tested by another protocol than most runs on {task}: evaluate it alike")
            continue
        if len(lengths[task, name]) > 1:
            name += f", {one.experiment.iterations} iterations"
        if len(chosen[task]) > 1:
            name += f", checkpoint {one.record['protocol']['checkpoint']}"
        group = members.setdefault((task, name), [])
        twin = next((other.run for other in group if other.experiment.seed == one.experiment.seed), None)
        if twin is None:
            group.append(one)
        else:
            problems.append(f"{one.run} has the settings and the seed of {twin}: a seed counts once")
    order = list(dict.fromkeys(tasks))
    found_groups = []
    for (task, name), runs in sorted(members.items(), key=lambda item: order.index(item[0][0])):
        scores = np.stack([one.after for one in runs])
        found_groups.append(Group(task, name, runs, scores[:, ~np.isnan(scores).any(0)]))
    return found_groups


def read(run: Path, *, measure: Measure, step: int | None) -> Tested:
    """A run's newest evaluation.

    Raises:
        ValueError: no run folder, not evaluated, not complete when it was, or damaged.
    """
    experiment = load_experiment(run, device="cpu")
    files = [path for path in run.glob("evaluation*.json") if EVALUATION.fullmatch(path.name)]
    if not files:
        raise ValueError(f"{run} has no evaluation.json: metarl evaluate {run}")
    path = max(files, key=lambda path: path.lstat().st_mtime_ns)
    try:
        record = json.loads(read_file(path, MOST_BYTES))
        protocol = record["protocol"]
        done, asked = protocol.get("iterations_of_run", protocol["iterations"]), protocol["iterations_asked"]
        if not protocol.get("complete", done >= asked):
            raise ValueError(f"{run} was evaluated unfinished, after {done} of {asked} iterations: resume it first")
        return _tested(run, experiment, record, measure, step)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is no evaluation that can be read: {error!r}") from error


def _tested(run: Path, experiment: Experiment, record: dict[str, Any], measure: Measure, step: int | None) -> Tested:
    own, has_success = record["protocol"]["algorithm"], experiment.task.spec.has_success
    chosen = ("success" if has_success else "return") if measure == "auto" else measure
    if chosen == "success" and not has_success:
        raise ValueError(f"{run}: {experiment.task.name} does not define success, use --measure return")
    ending = ", greedy" if chosen == "success" else ""
    others = record["comparisons"]
    scores = _by_step(others[own + ending] if ending else record, chosen, bool(record["protocol"]["step_size_scales"]))
    last = scores.shape[1] - 1
    if step is not None and not 0 <= step <= last:
        raise ValueError(f"step is {step}: {run} was tested up to step {last}")
    after = scores[:, last if step is None else step]
    if not np.isfinite(after).any():
        raise ValueError(f"{run} has no usable episode in its evaluation")
    baseline, untrained = others.get("untrained" + ending), float("nan")
    if baseline is not None and "returns" in baseline:
        theirs = _by_step(baseline, chosen, bool(record["protocol"]["step_size_scales"]))
        untrained = float(np.nanmean(theirs[:, last if step is None else step]))
    return Tested(run, experiment, record, chosen, scores[:, 0], after, untrained)


def _by_step(row: dict[str, Any], measure: str, by_gradient: bool) -> NDArray[np.float64]:
    """Mean over episodes [task, step]; the return of an agent that remembers is that of the whole trial, one step."""
    returns = np.array(row["returns"], dtype=np.float64)  # null becomes NaN
    values = returns if measure == "return" else np.array(row["solved_at_end"], dtype=np.float64)
    if returns.ndim != 3 or values.shape != returns.shape or not returns.size:
        raise ValueError("an evaluation's returns are no [task][step][episode]")
    values = np.where(np.isnan(returns), np.nan, values)
    if measure == "return" and not by_gradient:
        values = values.sum(1, keepdims=True)
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(2) / known.sum(2)
