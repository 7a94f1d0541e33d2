"""Pictures: what adaptation brings on held-out tasks, and learning curves of runs, a panel for each task."""

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.envs.registry import presets_of
from metarl.runs.config import leaves, to_json
from metarl.runs.experiment import CHANGEABLE, Experiment
from metarl.runs.folder import load_experiment
from metarl.types import MetaLearner

Curve = tuple[np.ndarray, np.ndarray]
"""Environment steps, values."""

COLORS = mpl.color_sequences["tab10"]


def adaptation_figure(record: dict[str, Any], path: Path) -> None:
    """Return by inner step or episode, of ``evaluation.json``'s content; bands are 95 % intervals over tasks."""
    protocol = record["protocol"]
    by_gradient, num_steps = bool(protocol["step_size_scales"]), len(protocol["steps"])
    first = 0 if by_gradient else 1  # episodes count from 1
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    axes = figure.subplots()
    rows = {protocol["algorithm"]: record, **record["comparisons"]}
    marker = "o" if num_steps <= 10 else ""
    for color, (name, row) in zip(cycle(COLORS), rows.items(), strict=False):
        mean = [e["value"] for e in row["mean"]]
        steps = range(first, first + num_steps)
        axes.plot(steps, mean, marker=marker, color=color, label=name)
        if name.startswith(protocol["algorithm"]) or by_gradient:  # of ten rows, the bands would be one surface
            low, high = [e["low"] for e in row["mean"]], [e["high"] for e in row["mean"]]
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        published = (record["published"] or {"returns": {}})["returns"].get(name) if by_gradient else None
        if published is not None:
            axes.plot(
                steps[: len(published)],
                published[: len(mean)],
                "x--",
                color=color,
                alpha=0.7,
                label=f"{name}, published",
            )
    if num_steps <= 10:
        axes.set_xticks(range(first, first + num_steps))
    axes.set_xlabel("inner gradient steps" if by_gradient else "episode of the trial")
    axes.set_ylabel("return")
    axes.set_title(f"{protocol['task']} ({protocol['preset']}), {protocol['num_tasks']} held-out tasks", fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    _finish(axes)
    figure.savefig(path, dpi=130)


def learning_curves(runs: list[Path], path: Path, *, tags: Sequence[str]) -> None:
    """Curves over environment steps, in a panel for each task and tag; a learner has one color in all of them.

    Runs that differ in nothing but their seed are one line, their mean as far as all of them go, with a thin one for
    each: a band would hide that some seeds solve a task and others do not. A run need not have all of the tags.

    Raises:
        ValueError: a folder that is no run, or whose progress.csv has none of the tags.
    """
    if not runs:
        raise ValueError("runs is empty: give at least one run folder")
    experiments = [load_experiment(run, device="cpu") for run in runs]
    panels: dict[tuple[str, str], dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    for task, name, run in zip(panel_names(experiments), curve_names(experiments), runs, strict=True):
        for tag, curve in read_scalars(run, tags).items():
            panels[task, tag][name].append(curve)
    colors = dict(zip(dict.fromkeys(name for lines in panels.values() for name in lines), cycle(COLORS), strict=False))
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1.6 + 5.6 * columns, 4.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, ((task, tag), lines) in zip(grid, panels.items(), strict=False):
        _draw(axes, lines, colors)
        axes.set_title(task, fontsize=11)
        axes.set_ylabel(tag)
    for unused in grid[len(panels) :]:
        unused.remove()
    labelled = {
        label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled.keys(), loc="outside lower center", ncols=columns + 1, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw(axes: Axes, lines: dict[str, list[Curve]], colors: dict[str, Any]) -> None:
    for name, curves in lines.items():
        length = min(len(steps) for steps, _ in curves)
        steps = np.mean([steps[:length] for steps, _ in curves], axis=0)
        mean = np.mean([values[:length] for _, values in curves], axis=0)
        label = f"{name}, {len(curves)} run{'s' if len(curves) > 1 else ''}"
        axes.plot(steps, mean, color=colors[name], label=label)
        for curve in curves if len(curves) > 1 else ():
            axes.plot(*curve, color=colors[name], alpha=0.3, linewidth=0.8)
    axes.set_xlabel("environment steps, adaptation included")
    _finish(axes)


def read_scalars(run: Path, tags: Sequence[str]) -> dict[str, Curve]:
    """Those of ``tags`` that a run recorded: environment steps and values of the iterations that have one."""
    path = run / "progress.csv"
    if not path.exists():
        raise ValueError(f"{run} has nothing to plot yet: it has no progress.csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    recorded = sorted({tag for row in rows for tag, value in row.items() if value})
    if not any(tag in recorded for tag in tags):
        raise ValueError(f"tag is {', '.join(tags)}: {path} has {', '.join(recorded) or 'nothing yet'}")
    found = {}
    for tag in [tag for tag in tags if tag in recorded]:
        steps, values = np.array([(float(row["env_steps"]), float(row[tag])) for row in rows if row[tag]]).T
        found[tag] = steps, values
    return found


def panel_names(experiments: list[Experiment]) -> list[str]:
    """The task of each, with the preset that defines it, else with what tells it from the others of its name."""
    names = []
    definitions = [(experiment.task, leaves(to_json(experiment.task))) for experiment in experiments]
    for task, own in definitions:
        others = [fields for other, fields in definitions if other.name == task.name]
        differing = [f"{field} {value}" for field, value in own.items() if any(o[field] != value for o in others)]
        detail = presets_of(task)[:1] or differing
        names.append(f"{task.name} ({', '.join(detail)})" if detail else task.name)
    return names


def curve_names(experiments: list[Experiment]) -> list[str]:
    """A name for each; two on a task are the same where they differ in nothing but their seed, length or machine.

    Where the learner does not tell two of them apart, their presets do; where those do not, the fields that differ.
    """
    names = [_learner_name(experiment.learner) for experiment in experiments]
    tasks = [experiment.task for experiment in experiments]
    every = [leaves(to_json(experiment)) for experiment in experiments]
    settings = [{field: own[field] for field in own if field not in ("seed", *CHANGEABLE)} for own in every]
    presets = [{"preset": own.pop("preset")} for own in settings]
    for details in (presets, settings):
        rows, names = list(zip(tasks, names, details, strict=True)), []
        for task, name, own in rows:
            alike = [other for *key, other in rows if key == [task, name]]
            differing = [field for field in own if any(other.get(field) != own[field] for other in alike)]
            names.append(", ".join([name, *(f"{field} {own[field]}" for field in differing)]))
    return names


def _learner_name(learner: MetaLearner) -> str:
    parts = [type(learner).__name__, type(getattr(learner, "outer", learner)).__name__]
    estimator = getattr(learner, "estimator", "maml")
    if estimator != "maml":
        parts.append(estimator)
    if getattr(learner, "learn_inner_lr", False):
        parts.append("learned step sizes")
    return " ".join(dict.fromkeys(parts))


def _finish(axes: Axes) -> None:
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
