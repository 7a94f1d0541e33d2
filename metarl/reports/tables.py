"""What ``metarl evaluate`` leaves: a record that a reader can recompute or doubt, and a table."""

from typing import Any

import numpy as np
import torch
from rich.table import Table
from rich.text import Text

from metarl.evaluate import HELD_OUT_SEED, MetaTest
from metarl.reports.plan import Plan
from metarl.reports.published import (
    Published,
    PublishedTrial,
    differences,
    published,
    published_success,
    published_trial,
)
from metarl.reports.statistics import Estimate, estimate
from metarl.reports.success import success_record
from metarl.reports.titles import task_title
from metarl.runs.config import to_json
from metarl.runs.experiment import Experiment
from metarl.runs.folder import versions
from metarl.runs.snapshot import Loaded
from metarl.types import remembers

LONGEST_CURVE = 10  # episodes that every row's raw returns are kept of; of longer trials the learner's alone
LARGEST_TASKS = 100_000  # numbers; larger sets of tasks are drawn again from their seed


def comparable(experiment: Experiment, plan: Plan) -> tuple[Published | None, list[str]]:
    """The published result where the plan's inner steps have its experience and its sizes, and in what ours differs.

    Where they do not, None, and what of the plan is another.
    """
    reference = published(experiment.task)
    if reference is None:
        return None, []
    other = []
    if plan.min_steps != reference.num_steps:
        given = f"an inner step sees {plan.adaptation_episodes} episodes" if not plan.min_steps else ""
        other.append(given or f"an inner step sees {plan.min_steps} steps or more")
    if any(scale != reference.later for scale in plan.scales[1:]):
        other.append(f"step sizes after the first are {plan.scales[1]:g} of it")
    return (None, other) if other else reference.beside(experiment.learner, plan.tasks)


def title(experiment: Experiment, plan: Plan, loaded: Loaded) -> str:
    """What was tested: the task as it is defined, on how many, and after how much training."""
    trial = "" if plan.scales or plan.trial == 1 else f", trials of {plan.trial} episodes"
    return f"{task_title(experiment.task)}{trial}: return on {plan.tasks} held-out tasks, {loaded.describe()}"


def summarize(
    experiment: Experiment,
    plan: Plan,
    loaded: Loaded,
    results: dict[str, MetaTest],
    tasks: torch.Tensor,
    limits: dict[str, float],
) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    learner, task, said = experiment.learner, experiment.task, experiment.learner.describe()
    own, *others = results
    reference: Published | PublishedTrial | None
    if plan.scales:
        reference, differing = comparable(experiment, plan)
    else:
        reference = published_trial(task, plan.trial)
        differing = differences(reference.learner, learner) if reference is not None else []
    labels = task.labels(tasks)
    by_kind = {}
    if task.spec.has_success:
        kinds = labels or [task.name] * plan.tasks
        known = published_success(task)
        by_kind = success_record(results, kinds, horizon=task.horizon, published=known, trials=remembers(learner))
    return {
        "protocol": {
            "task": task.name,
            "title": title(experiment, plan, loaded),
            "preset": experiment.preset,
            "algorithm": own,
            "num_tasks": plan.tasks,
            "num_episodes": plan.episodes,
            "min_steps_per_adaptation": plan.min_steps,
            "adaptation_episodes": plan.adaptation_episodes,
            "inner_lr": said.inner_lr,
            "inner_lr_learned": None if said.inner_lr is None else said.learns_inner_lr,
            "step_size_scales": list(plan.scales),
            "steps": plan.steps,
            "actions": "sampled, but of rows called greedy; there adaptation is to sampled episodes, where a task has "
            "inner steps or success, else trials are greedy throughout",
            "success": "solved_after: steps until the first (0: none); solved_at_end: at the last step; solved_share: "
            "of the last 50 steps",
            "checkpoint": loaded.asked,
            "iterations": loaded.progress.iteration,
            "iterations_of_run": loaded.last,
            "iterations_asked": experiment.iterations,
            "complete": loaded.complete,
            "env_steps": loaded.progress.env_steps,
            "task_seed": HELD_OUT_SEED if task.published_tasks(1) is None else "published tasks",
            "seed": plan.seed,
            "layout": "[task][adaptation step or episode of the trial][episode or trial], null where it diverged",
        },
        **row_record(plan, results[own], task.spec.has_success, raw=True),
        "comparisons": {
            row: row_record(plan, results[row], task.spec.has_success, raw=plan.trial <= LONGEST_CURVE)
            for row in others
        },
        "success": by_kind,
        "labels": labels,
        "bounds": limits,
        "published": None if reference is None else reference._asdict(),
        "differences_from_published": differing,
        "tasks": tasks.tolist() if tasks.numel() <= LARGEST_TASKS else None,
        "experiment": to_json(experiment),
        "versions": versions(),
    }


def row_record(plan: Plan, result: MetaTest, has_success: bool, *, raw: bool) -> dict[str, Any]:
    record: dict[str, Any] = {"left_out": int(result.returns.isnan().sum())}
    record |= {"mean": [e._asdict() for e in estimates(result, iqm=False)]}
    if plan.scales:
        record["iqm"] = [e._asdict() for e in estimates(result, iqm=True)]
    else:
        record["trial"] = trial_estimate(result)._asdict()
    if raw:
        returns = result.returns.cpu().numpy().astype(object)
        returns[result.returns.isnan().cpu().numpy()] = None  # JSON has no NaN
        record["returns"] = returns.tolist()
    if raw and has_success:
        record["solved_after"] = result.solved_after.tolist()
        record["solved_at_end"] = result.solved_at_end.int().tolist()
        record["solved_share"] = result.solved_share.tolist()
    return record


def estimates(result: MetaTest, *, iqm: bool) -> list[Estimate]:
    """One estimate a step, over the tasks' mean returns."""
    scores = result.returns.double().nanmean(2).cpu().numpy()
    return [estimate(scores[:, step], iqm=iqm) for step in range(scores.shape[1])]


def trial_estimate(result: MetaTest) -> Estimate:
    """The mean return of a whole trial, summed over its episodes."""
    return estimate(result.returns.double().sum(1).nanmean(1).cpu().numpy(), iqm=False)


INTERVAL = (
    "95 %: interval of the mean above it, from resampling the tasks (bootstrap), the band of the picture; another draw "
    "of tasks would move the mean as far."
)
IQM = "IQM: interquartile mean, of the middle half of the tasks, which a few odd ones do not move."
OTHERS = {
    "untrained": "untrained: the same learner before training.",
    "pretrained": "pretrained: the same policy trained on all tasks at once without adapting, then adapted alike.",
    "memoryless": "memoryless: the same policy without memory, trained on all tasks at once.",
}


def table(
    experiment: Experiment,
    plan: Plan,
    loaded: Loaded,
    results: dict[str, MetaTest],
    limits: dict[str, float],
    *,
    full: bool = True,
) -> Table:
    """Means with their intervals and the published means, by policy; ``full`` adds spread and interquartile means."""
    found = Table(title=Text(title(experiment, plan, loaded)))
    found.add_column("policy")
    if plan.scales:
        notes = _fill_by_step(found, experiment, plan, results, full)
    else:
        notes = _fill_by_trial(found, experiment, plan, results)
    for name, value in limits.items():
        found.add_row(Text(f"bound: {name}"), f"{value:.2f}")
    if limits:
        notes.append("bound: what no policy can exceed on average, or the named optimum earns.")
    found.caption = Text(" ".join([*notes, *(text for row, text in OTHERS.items() if row in results)]))
    return found


def _fill_by_step(
    found: Table, experiment: Experiment, plan: Plan, results: dict[str, MetaTest], full: bool
) -> list[str]:
    """Mean and interquartile mean after each inner step, their intervals, and success: some lines each policy.

    Returns:
        What the caption has to say.
    """
    reference, differing = comparable(experiment, plan)
    has_success = experiment.task.spec.has_success
    found.add_column("measure")
    for step in plan.steps:
        found.add_column(step, justify="right")
    for row, result in results.items():
        means = estimates(result, iqm=False)
        found.add_row(Text(row), "mean", *[f"{e.value:.1f}" for e in means], style="bold")
        found.add_row("", "95 %", *[f"{e.low:.1f} .. {e.high:.1f}" for e in means])
        if reference is not None and row in reference.returns:
            found.add_row("", "published", *[f"{x:.1f}" for x in reference.returns[row][: len(means)]])
        if full:
            middles = estimates(result, iqm=True)
            spread = np.nanstd(result.returns.double().nanmean(2).cpu().numpy(), axis=0)
            found.add_row("", "sd over tasks", *[f"{x:.1f}" for x in spread])
            found.add_row("", "IQM", *[f"{e.value:.1f}" for e in middles])
            found.add_row("", "95 % of IQM", *[f"{e.low:.1f} .. {e.high:.1f}" for e in middles])
        if has_success:
            rates = result.known(result.solved_at_end).nanmean((0, 2)).tolist()
            found.add_row("", "success at the end", *[f"{x:.0%}" for x in rates])
        found.add_section()
    own = next(iter(results))
    notes = [
        INTERVAL,
        *([IQM] if full else []),
        f"{own}, greedy: adapted to sampled episodes as {own} is, then its most likely actions.",
    ]
    if reference is not None:
        ours = f" Ours differs: {', '.join(differing)}." if differing else ""
        notes.append(f"published: {reference.source}.{ours}")
    elif (other := published(experiment.task)) is not None:
        notes.append(
            f"published results are of another protocol, and left out ({'; '.join(differing)}): {other.source}."
        )
    return notes


def _fill_by_trial(found: Table, experiment: Experiment, plan: Plan, results: dict[str, MetaTest]) -> list[str]:
    """Mean return of a trial and of its first and last episodes, with their intervals: a line each policy.

    Returns:
        What the caption has to say.
    """
    reference = published_trial(experiment.task, plan.trial)
    shown = list(range(plan.trial)) if plan.trial <= 3 else [0, plan.trial - 1]
    has_success = experiment.task.spec.has_success
    columns = ["trial", "95 %", *(["published"] if reference else [])]
    columns += [column for k in shown for column in (plan.steps[k], "95 %")]
    for column in [*columns, *(["success at the end of the last"] if has_success else [])]:
        found.add_column(column, justify="right")
    for row, result in results.items():
        trial, episodes = trial_estimate(result), estimates(result, iqm=False)
        cells = [f"{trial.value:.2f}", f"{trial.low:.2f} .. {trial.high:.2f}"]
        if reference is not None:
            cells.append(f"{reference.returns[row]:.1f}" if row in reference.returns else "")
        for episode in (episodes[k] for k in shown):
            cells += [f"{episode.value:.2f}", f"{episode.low:.2f} .. {episode.high:.2f}"]
        if has_success:
            cells.append(f"{result.known(result.solved_at_end)[:, -1].nanmean():.0%}")
        found.add_row(Text(row), *cells, style="bold" if row == next(iter(results)) else None)
    found.add_section()
    notes = ["trial: the episodes of one task in a row, remembered; its return is their sum.", INTERVAL]
    apart = has_success and not experiment.task.spec.terminates
    how = "its most likely actions in each episode, all before it sampled" if apart else "always its most likely action"
    notes.append(f"{next(iter(results))}, greedy: {how}.")
    if reference is not None:
        differing = differences(reference.learner, experiment.learner)
        ours = f" Ours differs: {', '.join(differing)}." if differing else ""
        notes.append(f"published: {reference.source}.{ours}")
    return notes
