"""What a search found: a table of the best trials, all of them as CSV, and how much each setting mattered."""

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from metarl.runs.files import write_whole
from metarl.search.dimensions import Choice, Space, label
from metarl.search.journal import best_first, optuna, quiet, values_of
from metarl.search.worker import Search

FEWEST = 4  # trials that say something about which settings matter


def best_table(search: Search, count: int = 10) -> Table:
    """The best trials: those that got farthest, by their objective there."""
    table = Table(box=None)
    for heading in ("trial", "iterations", search.objective, *search.space):
        table.add_column(heading, justify="right")
    for trial in best_first(search.journal.trials())[:count]:
        reached = max(trial.intermediate_values)
        values = values_of(trial, search.space)
        cells = [label(values[name]) if name in values else "-" for name in search.space]
        table.add_row(str(trial.number), str(reached), f"{trial.intermediate_values[reached]:.4g}", *cells)
    return table


def write_csv(search: Search) -> Path:
    """``trials.csv``: a line for each trial, in the order of their numbers, its objective at each rung."""
    names, rungs = list(search.space), search.rungs
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["trial", "state", *names, *(f"{search.objective} at {rung}" for rung in rungs)])
    for trial in search.journal.trials():
        values = values_of(trial, search.space)
        state = "diverged" if "diverged" in trial.user_attrs else trial.state.name.lower()
        objectives = [trial.intermediate_values.get(rung, "") for rung in rungs]
        writer.writerow([trial.number, state, *(label(values[n]) if n in values else "" for n in names), *objectives])
    path = search.folder / "trials.csv"
    write_whole(path, text.getvalue().encode())
    return path


def compared(search: Search) -> list[tuple[Any, float]]:
    """Every trial with its objective at the first rung, which all of them reached alike."""
    first = search.rungs[0]
    found = [(trial, trial.intermediate_values.get(first)) for trial in search.journal.trials()]
    return [(trial, value) for trial, value in found if value is not None and math.isfinite(value)]


def importances(search: Search) -> Mapping[str, float]:
    """The share of each setting in the variance of the objective at the first rung (PED-ANOVA, Watanabe et al. 2023);
    empty where too few trials say anything."""
    optuna_, trials = optuna(), compared(search)
    if len(trials) < FEWEST:
        return {}
    with quiet():
        study = optuna_.create_study(direction="maximize")
        for trial, value in trials:
            study.add_trial(
                optuna_.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value)
            )
        evaluator = optuna_.importance.PedAnovaImportanceEvaluator(target_quantile=0.25)
        try:
            found: dict[str, float] = optuna_.importance.get_param_importances(study, evaluator=evaluator)
        except (ValueError, RuntimeError):  # nothing that every trial has
            return {}
    return found


def draw(search: Search) -> Path | None:
    """``importance.png``: importances, and the objective over each setting; None where there is too little."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    shares, trials = importances(search), compared(search)
    if not shares:
        return None
    names = sorted(shares, key=lambda name: -shares[name])
    columns = min(4, 1 + len(names))
    rows = math.ceil((1 + len(names)) / columns)
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    axes[0].barh(names[::-1], [shares[name] for name in names[::-1]], color="tab:blue")
    axes[0].set_xlabel("share of the variance")
    axes[0].set_title(f"importance at iteration {search.rungs[0]}", fontsize=9)
    for name, axis in zip(names, axes[1:], strict=False):
        scatter(axis, name, search.space, trials)
    for axis in axes[1 + len(names) :]:
        axis.axis("off")
    path = search.folder / "importance.png"
    figure.savefig(path, dpi=120)
    return path


def scatter(axis: Any, name: str, space: Space, trials: list[tuple[Any, float]]) -> None:
    """The objective over one setting."""
    points = [(values_of(trial, space)[name], value) for trial, value in trials if name in trial.params]
    dimension = space[name]
    across = [label(x) if isinstance(dimension, Choice) else x for x, _ in points]
    axis.scatter(across, [y for _, y in points], s=14, color="tab:blue", alpha=0.7)
    if not isinstance(dimension, Choice) and dimension.log:
        axis.set_xscale("log")
    axis.set_xlabel(name)
