"""Performance profiles: the share of runs and held-out tasks above each score (Agarwal et al. 2021)."""

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from metarl.reports.gathering import Group
from metarl.reports.panels import finish, legend
from metarl.reports.statistics import profile

THRESHOLDS = 101


def profile_figure(groups: Sequence[Group], path: Path) -> None:
    """A panel for each task distribution, with a line and its 95 % band over runs for each learner."""
    tasks, names = (list(dict.fromkeys(getattr(g, field) for g in groups)) for field in ("task", "name"))
    colors = dict(zip(names, cycle(mpl.color_sequences["tab10"]), strict=False))
    columns = min(len(tasks), 2)
    rows = math.ceil(len(tasks) / columns)
    figure = Figure(figsize=(1.6 + 5.2 * columns, 4.2 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, task in zip(grid, tasks, strict=False):
        here = [group for group in groups if group.task == task]
        success = here[0].runs[0].measure == "success"
        every = np.concatenate([group.scores.ravel() for group in here])
        low, high = (0.0, 1.0) if success else (every.min(), every.max())
        thresholds = np.linspace(low, high, THRESHOLDS)
        for group in here:
            found = np.array(profile(group.scores, thresholds))
            label = f"{group.name}, {len(group.runs)} run{'s' if len(group.runs) > 1 else ''}"
            axes.step(thresholds, found[:, 0], where="post", color=colors[group.name], label=label)
            if len(group.runs) > 1:
                bounds = {"step": "post", "color": colors[group.name], "alpha": 0.15, "linewidth": 0}
                axes.fill_between(thresholds, found[:, 1], found[:, 2], **bounds)
        axes.set_title(task, fontsize=11, parse_math=False)
        what = "success at the end" if success else "return"
        axes.set_xlabel(f"{what} after adaptation, tau")
        axes.set_ylabel("share of runs and held-out tasks above tau")
        axes.set_ylim(-0.02, 1.02)
        finish(axes)
    for unused in grid[len(tasks) :]:
        unused.remove()
    figure.suptitle("Performance profiles; bands: 95 % intervals over runs", fontsize=10)
    legend(figure, ncols=columns)
    figure.savefig(path, dpi=130)
