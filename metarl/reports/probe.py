"""``metarl probe``: how much of the task a linear probe reads from what a learner holds, over time."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import IO, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from metarl.envs.fields import BadField, require, require_numbers
from metarl.envs.registry import TaskDistribution
from metarl.evaluate import HELD_OUT_SEED, held_out_tasks
from metarl.probing import Knowledge, of_examples, of_inner_steps, of_memory
from metarl.reports.files import require_writable, write_record
from metarl.reports.panels import finish, legend
from metarl.reports.ridge import held_out_predictions
from metarl.reports.statistics import Estimate, determination, estimate
from metarl.reports.titles import task_title
from metarl.runs.config import to_json
from metarl.runs.experiment import Experiment
from metarl.runs.folder import load_experiment
from metarl.runs.process import prepare_process
from metarl.runs.snapshot import load_chosen
from metarl.runs.supervised import FewShotExperiment
from metarl.runs.versions import versions
from metarl.seeds import stream, stream_seed
from metarl.types import remembers

FOLDS, SHUFFLES = 5, 20
FEWEST = 20  # tasks that are known; below, a score says nothing
MOST_KINDS = 10  # different values of a number that is a choice
SHOWN = 8  # parameters in table and picture
COLUMNS = 5  # times in the table


@dataclass(frozen=True)
class ProbePlan:
    """What is probed."""

    tasks: int | None = None
    """Held-out tasks, the paper's own where they are known; by default 400 for a learner that remembers, 100 for one
    with inner steps, 1000 of examples."""
    steps: int | None = None
    """Inner steps, by default 3, on examples 10; or episodes of a trial, by default as in training."""
    points: int = 40
    """Steps of a trial that are probed, evenly spaced."""
    seed: int = 0
    """Seed of action and reset noise, of folds and shuffles; the tasks do not depend on it."""

    def __post_init__(self) -> None:
        require_numbers(self)
        require(self, "points", at_least=1)
        if self.steps is not None:
            require(self, "steps", at_least=1)
        if self.tasks is not None and self.tasks < 2 * FEWEST:
            raise BadField(f"tasks is {self.tasks}: use at least {2 * FEWEST}, a probe is fitted to some of them")


class Target(NamedTuple):
    """A number of the task parameter, to be read from features."""

    name: str
    values: NDArray[np.float64]
    """[task]; of a choice the number of its kind."""
    kinds: int
    """Of a choice, else 0."""

    @property
    def measure(self) -> str:
        return "accuracy" if self.kinds else "R²"

    @property
    def columns(self) -> NDArray[np.float64]:
        """What the regression predicts [task column]: the number, or which kind it is as a one-hot vector."""
        return np.eye(self.kinds)[self.values.astype(int)] if self.kinds else self.values[:, None]

    def score(self, predicted: NDArray[np.float64], targets: NDArray[np.float64]) -> Estimate:
        """Of predictions [task column]: the share of kinds that are right, or R², and its interval over tasks."""
        if self.kinds:
            return estimate((predicted.argmax(1) == targets.argmax(1)).astype(float), iqm=False)
        return determination(targets[:, 0], predicted[:, 0])


class Curve(NamedTuple):
    """A target's score over time, and what shuffled tasks give."""

    target: Target
    scores: list[Estimate]
    chance: list[Estimate]
    """Mean over shuffles, lowest and highest."""


def targets_of(tasks: TaskDistribution, task: Float[Tensor, "task ..."]) -> list[Target]:
    """The numbers of the task parameter that differ between tasks; those with few values are choices."""
    numbers = task.reshape(len(task), -1).double().cpu().numpy()
    width = numbers.shape[1]
    names = tasks.parameter_names
    if len(names) != width:
        names = ("parameter",) if width == 1 else tuple(f"parameter {k + 1}" for k in range(width))
    found = []
    for name, column in zip(names, numbers.T, strict=True):
        values, kind = np.unique(column, return_inverse=True)
        if 1 < len(values) <= min(MOST_KINDS, len(column) // 5):
            found.append(Target(name, kind.astype(float), len(values)))
        elif len(values) > 1:
            found.append(Target(name, column, 0))
    if not found:
        raise BadField(f"task is {tasks.name}: all of its held-out tasks are the same, there is nothing to read")
    return found


def score(knowledge: Sequence[Knowledge], targets: Sequence[Target], *, seed: int) -> tuple[list[int], list[Curve]]:
    """Scores on held-out folds of tasks at each time where enough tasks are known.

    Chance is the same with the tasks' numbers shuffled among them, by several draws.

    Returns:
        The times, and a curve for each target.
    """
    draws = np.random.default_rng(seed)
    num_tasks = len(targets[0].values)
    fold = draws.permutation(num_tasks) % FOLDS
    orders = [np.arange(num_tasks), *(draws.permutation(num_tasks) for _ in range(SHUFFLES))]
    columns = [target.columns[order] for target in targets for order in orders]
    when: list[int] = []
    curves = [Curve(target, [], []) for target in targets]
    for held in knowledge:
        known = np.flatnonzero(held.known.numpy())
        if len(known) < FEWEST:
            continue
        when.append(held.when)
        wanted = [column[known] for column in columns]
        features = held.features.numpy()[known]
        predicted = held_out_predictions(features, np.concatenate(wanted, axis=1), fold[known])
        pieces = np.split(predicted, np.cumsum([column.shape[1] for column in wanted])[:-1], axis=1)
        pairs = list(zip(pieces, wanted, strict=True))
        for k, (target, scores, chance) in enumerate(curves):
            own, *shuffled = pairs[k * len(orders) : (k + 1) * len(orders)]
            scores.append(target.score(*own))
            values = [target.score(*pair).value for pair in shuffled]
            chance.append(Estimate(float(np.mean(values)), min(values), max(values)))
    if not when:
        raise BadField(f"tasks is {num_tasks}: fewer than {FEWEST} of them could be used, give more")
    return when, curves


def probe_run(
    run: Path,
    plan: ProbePlan,
    *,
    console: Console,
    checkpoint: str = "last",
    device: str | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Probes a checkpoint of a run; shows a table, writes ``probe.json`` and a picture, and returns the record.

    Raises:
        ValueError: not a run folder, nothing to probe, or a folder that cannot be written.
    """
    say = partial(console.print, markup=False, highlight=False)
    experiment = load_experiment(run, device)
    loaded = load_chosen(experiment, run, checkpoint, say)
    folder = require_writable(run if out is None else out)
    prepare_process(experiment.num_threads)
    say(f"checkpoint {checkpoint}: {loaded.describe()}")
    task, knowledge, unit = collect(experiment, loaded.progress.learner_state, plan)
    when, curves = score(knowledge, targets_of(experiment.task, task), seed=stream_seed(plan.seed, "probe") % 2**32)
    record = {
        "protocol": {
            "task": experiment.task.name,
            "title": f"{task_title(experiment.task)}: linear probe of {type(experiment.learner).__name__} on "
            f"{len(task)} held-out tasks, {loaded.describe()}",
            "algorithm": type(experiment.learner).__name__,
            "num_tasks": len(task),
            "folds": FOLDS,
            "shuffles": SHUFFLES,
            "time": unit,
            "features": [held.features.shape[1] for held in knowledge],
            "checkpoint": loaded.asked,
            "iterations": loaded.progress.iteration,
            "task_seed": HELD_OUT_SEED,
            "seed": plan.seed,
        },
        "when": when,
        "parameters": {
            curve.target.name: {
                "measure": curve.target.measure,
                "kinds": curve.target.kinds,
                "curve": [e._asdict() for e in curve.scores],
                "chance": [e._asdict() for e in curve.chance],
            }
            for curve in curves
        },
        "experiment": to_json(experiment),
        "versions": versions(),
    }
    console.print(table(record))
    written = write_record(folder, "probe", record, partial(picture, record))
    say(f"scores over time: {written} · picture: {written.with_suffix('.png')}")
    return record


def collect(
    experiment: Experiment, state: Any, plan: ProbePlan
) -> tuple[Float[Tensor, "task ..."], list[Knowledge], str]:
    """The held-out tasks, what the learner holds of each over time, and what time is counted in."""
    learner, limit = experiment.learner, experiment.task.num_test_tasks
    draws = stream(plan.seed, "probe actions", device=experiment.device)
    if isinstance(experiment, FewShotExperiment):
        task = experiment.task.held_out(plan.tasks or 1000, stream(HELD_OUT_SEED, "tasks"))
        return task, of_examples(learner, state, experiment.task, task, plan.steps or 10, draws), "inner steps"
    num_tasks = plan.tasks or (400 if remembers(learner) else 100)
    task = held_out_tasks(experiment.task, min(num_tasks, limit or num_tasks))
    resets = f"probe resets {plan.seed}"
    if remembers(learner):
        env = experiment.make_env(len(task), 1, stream=resets)
        episodes = plan.steps or experiment.episodes_per_env
        return task, of_memory(learner, state, env, task, episodes, draws, points=plan.points), "steps of the trial"
    env = experiment.make_env(len(task), experiment.episodes, stream=resets)
    return task, of_inner_steps(learner, state, env, task, [1.0] * (plan.steps or 3), draws), "inner steps"


def best_first(record: dict[str, Any]) -> list[str]:
    """The parameters by how well they are read at the end."""
    found = record["parameters"]
    return sorted(found, key=lambda name: -found[name]["curve"][-1]["value"])


def table(record: dict[str, Any]) -> Table:
    """Scores with their intervals at some times, and below each what shuffled tasks give."""
    protocol, when = record["protocol"], record["when"]
    columns = sorted({round(k) for k in np.linspace(0, len(when) - 1, min(COLUMNS, len(when)))})
    found = Table(title=Text(protocol["title"]))
    found.add_column("parameter")
    found.add_column("measure")
    for k in columns:
        found.add_column(f"{when[k]} {protocol['time']}" if k == columns[0] else str(when[k]), justify="right")
    names = best_first(record)
    for name in names[:SHOWN]:
        row = record["parameters"][name]
        found.add_row(Text(name), row["measure"], *(f"{row['curve'][k]['value']:.2f}" for k in columns), style="bold")
        found.add_row("", "95 %", *(f"{row['curve'][k]['low']:.2f} .. {row['curve'][k]['high']:.2f}" for k in columns))
        found.add_row("", "chance", *(f"{row['chance'][k]['value']:.2f}" for k in columns))
        found.add_section()
    more = f" {len(names) - SHOWN} more are in the record." if len(names) > SHOWN else ""
    found.caption = Text(
        f"Ridge regression with its penalty by leave-one-out, scored on tasks that it was not fitted to ({FOLDS} "
        "folds). 95 %: from resampling the tasks. chance: the same with tasks shuffled, mean of "
        f"{SHUFFLES} draws.{more}"
    )
    return found


def picture(record: dict[str, Any], file: Path | IO[bytes]) -> None:
    """Scores over time with their intervals; broken lines are the highest of the shuffles."""
    figure = Figure(figsize=(6.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for name, color in zip(best_first(record)[:SHOWN], cycle(mpl.color_sequences["tab10"]), strict=False):
        row, when = record["parameters"][name], record["when"]
        low, high = ([e[end] for e in row["curve"]] for end in ("low", "high"))
        axes.plot(when, [e["value"] for e in row["curve"]], color=color, label=f"{name} ({row['measure']})", marker=".")
        axes.fill_between(when, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(when, [e["high"] for e in row["chance"]], color=color, linestyle=":", linewidth=1)
    axes.plot([], [], color="0.3", linestyle=":", linewidth=1, label=f"highest of {SHUFFLES} shuffles")
    axes.set_xlabel(record["protocol"]["time"])
    axes.set_ylabel("read from what the learner holds")
    axes.set_ylim(bottom=max(-0.5, axes.get_ylim()[0]), top=1.05)
    axes.set_title(record["protocol"]["title"].partition(":")[0], fontsize=11, parse_math=False)
    finish(axes)
    legend(figure, ncols=2)
    figure.savefig(file, dpi=130)
