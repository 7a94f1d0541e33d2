"""Pictures: what adaptation brings on held-out tasks, and learning curves of runs, a panel for each task."""

import math
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarl.reports.beside import Line, published_lines, read_beside
from metarl.reports.curves import Curve, align, expand, read_scalars, smoothed
from metarl.reports.groups import curve_names, panel_names
from metarl.reports.panels import finish, legend
from metarl.runs.folder import load_experiment

OF_EXAMPLES = ("loss", "accuracy")  # tags of few-shot runs
COLORS = mpl.color_sequences["tab10"]


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr)


def adaptation_figure(record: dict[str, Any], file: Path | IO[bytes]) -> None:
    """Return by inner step or episode, of ``evaluation.json``'s content, and beside it success at the last step.

    Where there are several kinds of task, a third panel has the greedy learner's success of each after adaptation.
    Bands are the table's 95 % intervals over tasks. Records from before success was kept by step have one panel.
    """
    protocol = record["protocol"]
    own, by_gradient = protocol["algorithm"], bool(protocol["step_size_scales"])
    rows = {own: record, **record["comparisons"]}
    success = {row: kinds["all"]["end"] for row, kinds in record.get("success", {}).items() if "end" in kinds["all"]}
    headline = record.get("success", {}).get(f"{own}, greedy", {})
    by_kind = {kind: row["end"][-1] for kind, row in headline.items() if kind != "all" and "end" in row}
    num_panels = 1 + bool(success) + (len(by_kind) > 1)
    figure = Figure(figsize=(6.2 * num_panels, max(4.8, 0.2 * len(by_kind))), layout="constrained")
    panels = figure.subplots(1, num_panels, squeeze=False)[0]
    colors = dict(zip(rows, cycle(COLORS), strict=False))
    for axes, curves in zip(panels, ({name: row["mean"] for name, row in rows.items()}, success), strict=False):
        for name, estimates in curves.items():
            banded = name.startswith(own) or by_gradient  # of ten rows, the bands would be one surface
            _curve(axes, estimates, protocol, color=colors[name], label=name, banded=banded)
        at_once = "measure" in protocol and not by_gradient
        axes.set_xlabel("inner gradient steps" if by_gradient else "" if at_once else "episode of the trial")
        finish(axes)
    if by_gradient:
        differs = " (ours differs)" if record.get("differences_from_published") else ""
        for name, values in (record["published"] or {"returns": {}})["returns"].items():
            if name in rows:
                values, label = values[: len(protocol["steps"])], f"{name}, published{differs}"
                panels[0].plot(range(len(values)), values, "x--", color=colors[name], alpha=0.7, label=label)
    panels[0].set_ylabel(protocol.get("measure", "return"))
    if success:
        panels[1].set_ylabel("success at the last step")
        panels[1].set_ylim(-0.02, 1.02)
    if len(by_kind) > 1:
        _bars(panels[2], by_kind, color=colors[f"{own}, greedy"])
        panels[2].set_xlabel(f"success at the last step of {own}, greedy, after adaptation", parse_math=False)
    named = protocol.get("title") or f"{protocol['task']}: return on {protocol['num_tasks']} held-out tasks"
    figure.suptitle(f"{named}\nbands: 95 % intervals over tasks", fontsize=10, parse_math=False)
    legend(figure, ncols=3)
    figure.savefig(file, dpi=130, format="png")


def _bars(axes: Axes, estimates: dict[str, dict[str, float]], *, color: Any) -> None:
    """A bar for each kind of task with its interval, the first on top."""
    values = [e["value"] for e in estimates.values()]
    below = [max(0.0, e["value"] - e["low"]) for e in estimates.values()]
    above = [max(0.0, e["high"] - e["value"]) for e in estimates.values()]
    axes.barh(range(len(values)), values, xerr=[below, above], color=color, alpha=0.7)
    axes.set_yticks(range(len(values)), list(estimates), fontsize=8, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    finish(axes)


def _curve(
    axes: Axes, estimates: list[dict[str, float]], protocol: dict[str, Any], *, banded: bool, **style: Any
) -> None:
    """An estimate at each inner step or episode; episodes count from 1."""
    first, few = 0 if protocol["step_size_scales"] else 1, len(estimates) <= 10
    steps = range(first, first + len(estimates))
    if len(estimates) == 1 < len(protocol["steps"]):  # it has no inner steps, as the others have
        axes.axhline(estimates[0]["value"], linestyle="--", **style)
        return
    axes.plot(steps, [e["value"] for e in estimates], marker="o" if few else "", **style)
    if banded:
        low, high = [e["low"] for e in estimates], [e["high"] for e in estimates]
        axes.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    if few:
        axes.set_xticks(steps)


def learning_curves(
    runs: list[Path],
    path: Path,
    *,
    tags: Sequence[str],
    interval: bool = False,
    smooth: int = 0,
    published: bool = False,
    beside: Path | None = None,
    warn: Callable[[str], None] = _to_stderr,
) -> None:
    """Curves over environment steps, in a panel for each task and tag; a learner has one color in all of them.

    Runs that differ in nothing but their seed are one line, their mean at equal environment steps as far as all of them
    go, in a band from the lowest to the highest seed and with a thin line for each seed: a band alone would hide that
    some seeds solve a task and others do not. A run need not have all of the tags. Runs that logged at other steps are
    interpolated linearly between their own.

    Args:
        runs: run folders, or folders of run folders.
        interval: the band is the 95 % bootstrap interval of the mean over runs, at each step by itself.
        smooth: a point becomes the mean of its run's points in so many environment steps up to it; 0: none does.
        published: draw what was published of exactly these tasks and this much adaptation, as end points.
        beside: a CSV file of other curves to draw (:func:`metarl.reports.beside.read_beside`).
        warn: told of each run that cannot be drawn, in a sentence; the others are.

    Raises:
        ValueError: there is nothing to draw.
    """
    if not runs:
        raise ValueError("runs is empty: give at least one run folder")
    readable, problems = [], []
    for run in expand(runs):
        try:
            readable.append((load_experiment(run, device="cpu"), read_scalars(run, tags)))
        except (ValueError, OSError) as error:
            problems.append(str(error))
    if not readable:
        rest = f" (and {len(problems) - 1} more runs with nothing to draw)" if problems[1:] else ""
        raise ValueError(problems[0] + rest)
    for problem in problems:
        warn(f"left out: {problem}")
    experiments = [experiment for experiment, _ in readable]
    others = read_beside(beside) if beside is not None else []
    panels: dict[tuple[str, str], dict[str, list[Curve]]] = defaultdict(lambda: defaultdict(list))
    known: dict[tuple[str, str], list[Line]] = defaultdict(list)
    names = zip(panel_names(experiments), curve_names(experiments), readable, strict=True)
    for task, name, (experiment, curves) in names:
        for tag, curve in curves.items():
            panels[task, tag][name].append(smoothed(curve, smooth) if smooth else curve)
            known[task, tag] += published_lines(experiment, tag) if published else []
    colors = dict(zip(dict.fromkeys(name for lines in panels.values() for name in lines), cycle(COLORS), strict=False))
    columns = min(len(panels), 2)
    rows = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(1.6 + 5.6 * columns, 4.4 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, ((task, tag), lines) in zip(grid, panels.items(), strict=False):
        _draw(axes, lines, colors, interval=interval)
        _draw_beside(axes, [*dict.fromkeys(known[task, tag])], [one for one in others if one.task in ("", task)])
        axes.set_title(task, fontsize=11, parse_math=False)
        axes.set_ylabel(f"{tag}\nmean of the last {smooth:,} env steps" if smooth else tag, parse_math=False)
        if tag.partition("/")[2].startswith(OF_EXAMPLES):
            axes.set_xlabel("labelled examples")
    for unused in grid[len(panels) :]:
        unused.remove()
    legend(figure, ncols=columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw_beside(axes: Axes, published: Sequence[Line], others: Sequence[Line]) -> None:
    """End points as thin lines over the whole width, curves thicker, broken and gray: nothing of them is ours."""
    looks = zip(cycle(("0.1", "0.4", "0.6", "0.75")), cycle(("--", ":", "-.")), strict=False)  # twelve
    for line, (shade, dashes) in zip([*published, *others], looks, strict=False):
        if line.env_steps:
            axes.plot(line.env_steps, line.values, linestyle=dashes, color=shade, label=line.label)
        else:
            axes.axhline(line.values[0], linestyle=dashes, linewidth=1, color=shade, label=line.label)


def _draw(axes: Axes, lines: dict[str, list[Curve]], colors: dict[str, Any], *, interval: bool) -> None:
    for name, curves in lines.items():
        color = colors[name]
        if len(curves) == 1:
            _line(axes, *curves[0], color=color, label=f"{name}, 1 run")
            continue
        band = "95 % interval of the mean" if interval else "band from lowest to highest"
        label = f"{name}, mean of {len(curves)} runs, {band}"
        spread = align(curves, interval=interval)
        if spread is None:
            axes.plot([], [], color=color, label=f"{name}, {len(curves)} runs that share no environment steps")
        else:
            _line(axes, spread.env_steps, spread.mean, color=color, label=label)
            axes.fill_between(spread.env_steps, spread.low, spread.high, color=color, alpha=0.12, linewidth=0)
        for curve in curves:
            _line(axes, *curve, color=color, alpha=0.3, linewidth=0.8)
    axes.set_xlabel("environment steps, adaptation included")
    finish(axes)


def _line(axes: Axes, steps: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """A line, or a marker where there is but one point: a line of one point cannot be seen."""
    axes.plot(steps, values, marker="o" if len(steps) == 1 else "", **style)
