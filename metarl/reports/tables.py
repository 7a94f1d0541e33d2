"""What ``metarl evaluate`` leaves: a record that a reader can recompute or doubt, and a table."""

from typing import Any, NamedTuple

import torch
from rich.table import Table

from metarl.envs.registry import TaskDistribution
from metarl.evaluate import HELD_OUT_SEED, MetaTest
from metarl.reports.published import Published, published, published_success, published_trial
from metarl.reports.statistics import Estimate, estimate
from metarl.reports.success import success_record
from metarl.runs.config import to_json
from metarl.runs.experiment import Experiment
from metarl.runs.folder import versions
from metarl.train import Progress

LONGEST_CURVE = 10  # episodes that every row's raw returns are kept of; of longer trials the learner's alone
LARGEST_TASKS = 100_000  # numbers; larger sets of tasks are drawn again from their seed


class Plan(NamedTuple):
    """A test, every default filled in."""

    tasks: int
    episodes: int
    """Of each task at each step; trials of each task, for a learner that remembers."""
    scales: tuple[float, ...]
    """Step size of each inner step, as a multiple of the learner's; empty for a learner that remembers."""
    trial: int
    """Episodes of a trial."""
    min_steps: int
    """Steps of experience that an inner step sees at least."""
    seed: int

    @property
    def steps(self) -> list[str]:
        """What the returns are listed by."""
        if not self.scales:
            return [f"episode {k + 1}" for k in range(self.trial)]
        return ["before", *(f"{k + 1} step{'s' if k else ''}" for k in range(len(self.scales)))]


def comparable(task: TaskDistribution, plan: Plan) -> Published | None:
    """The published result, where the plan's inner steps have its experience and its sizes."""
    reference = published(task)
    if reference is None or plan.min_steps != reference.num_steps:
        return None
    return reference if all(scale == reference.later for scale in plan.scales[1:]) else None


def summarize(
    experiment: Experiment,
    plan: Plan,
    progress: Progress,
    results: dict[str, MetaTest],
    tasks: torch.Tensor,
    limits: dict[str, float],
) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    learner, task = experiment.learner, experiment.task
    own, *others = results
    reference = comparable(task, plan) if plan.scales else published_trial(task, plan.trial)
    labels = task.labels(tasks)
    by_kind = success_record(results, labels, horizon=task.horizon, published=published_success(task)) if labels else {}
    return {
        "protocol": {
            "task": task.name,
            "preset": experiment.preset,
            "algorithm": own,
            "num_tasks": plan.tasks,
            "num_episodes": plan.episodes,
            "min_steps_per_adaptation": plan.min_steps,
            "inner_lr": getattr(learner, "inner_lr", None),
            "inner_lr_learned": getattr(learner, "learn_inner_lr", None),
            "step_size_scales": list(plan.scales),
            "steps": plan.steps,
            "actions": "sampled, but of rows called greedy",
            "success": "at any step of an episode",
            "checkpoint": "newest",
            "iterations": progress.iteration,
            "env_steps": progress.env_steps,
            "task_seed": HELD_OUT_SEED if task.published_tasks(1) is None else "published tasks",
            "seed": plan.seed,
            "layout": "[task][adaptation step or episode of the trial][episode or trial]",
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
        "tasks": tasks.tolist() if tasks.numel() <= LARGEST_TASKS else None,
        "experiment": to_json(experiment),
        "versions": versions(),
    }


def row_record(plan: Plan, result: MetaTest, has_success: bool, *, raw: bool) -> dict[str, Any]:
    record: dict[str, Any] = {"mean": [e._asdict() for e in estimates(result, iqm=False)]}
    if plan.scales:
        record["iqm"] = [e._asdict() for e in estimates(result, iqm=True)]
    else:
        record["trial"] = trial_estimate(result)._asdict()
    if raw:
        record["returns"] = result.returns.tolist()
    if raw and has_success:
        record["solved_after"] = result.solved_after.tolist()
    return record


def estimates(result: MetaTest, *, iqm: bool) -> list[Estimate]:
    """One estimate a step, over the tasks' mean returns."""
    scores = result.returns.double().mean(2).cpu().numpy()
    return [estimate(scores[:, step], iqm=iqm) for step in range(scores.shape[1])]


def trial_estimate(result: MetaTest) -> Estimate:
    """The mean return of a whole trial, summed over its episodes."""
    return estimate(result.returns.double().sum(1).mean(1).cpu().numpy(), iqm=False)


def table(experiment: Experiment, plan: Plan, results: dict[str, MetaTest], limits: dict[str, float]) -> Table:
    """Means with their intervals and the published means, by policy."""
    found = Table(title=f"{experiment.task.name} ({experiment.preset}): return on {plan.tasks} held-out tasks")
    found.add_column("policy")
    if plan.scales:
        _fill_by_step(found, experiment, plan, results)
    else:
        _fill_by_trial(found, experiment, plan, results, limits)
    return found


def _fill_by_step(found: Table, experiment: Experiment, plan: Plan, results: dict[str, MetaTest]) -> None:
    """Mean, interquartile mean and its 95 % interval over tasks after each inner step: some lines each policy."""
    reference = comparable(experiment.task, plan)
    found.add_column("measure")
    for step in plan.steps:
        found.add_column(step, justify="right")
    for row, result in results.items():
        means, middles = estimates(result, iqm=False), estimates(result, iqm=True)
        spread = result.returns.double().mean(2).std(0, correction=0).tolist()
        found.add_row(row, "mean", *[f"{e.value:.1f}" for e in means], style="bold")
        if reference is not None and row in reference.returns:
            found.add_row("", "published", *[f"{x:.1f}" for x in reference.returns[row][: len(means)]])
        found.add_row("", "sd over tasks", *[f"{x:.1f}" for x in spread])
        found.add_row("", "IQM", *[f"{e.value:.1f}" for e in middles])
        found.add_row("", "95 % of IQM", *[f"{e.low:.1f} .. {e.high:.1f}" for e in middles])
        if experiment.task.spec.has_success:
            found.add_row("", "success", *[f"{x:.0%}" for x in result.successes.double().mean((0, 2)).tolist()])
        found.add_section()
    if reference is not None:
        found.caption = f"published: {reference.source}"
    elif (other := published(experiment.task)) is not None:
        found.caption = f"published results are of another protocol, and left out: {other.source}"


def _fill_by_trial(
    found: Table, experiment: Experiment, plan: Plan, results: dict[str, MetaTest], limits: dict[str, float]
) -> None:
    """Mean return of a trial and half its 95 % interval, and of its first and last episodes: a line each policy."""
    reference = published_trial(experiment.task, plan.trial)
    shown = list(range(plan.trial)) if plan.trial <= 3 else [0, plan.trial - 1]
    has_success = experiment.task.spec.has_success
    columns = ["trial", *(["published"] if reference else []), *(plan.steps[k] for k in shown)]
    for column in [*columns, *(["success in the last"] if has_success else [])]:
        found.add_column(column, justify="right")
    for row, result in results.items():
        trial = trial_estimate(result)
        cells = [f"{trial.value:.2f} ± {(trial.high - trial.low) / 2:.2f}"]
        if reference is not None:
            cells.append(f"{reference.returns[row]:.1f}" if row in reference.returns else "")
        cells += [f"{result.returns[:, k].mean():.2f}" for k in shown]
        if has_success:
            cells.append(f"{result.successes[:, -1].float().mean():.0%}")
        found.add_row(row, *cells, style="bold" if row == next(iter(results)) else None)
    found.add_section()
    for name, value in limits.items():
        found.add_row(f"bound: {name}", f"{value:.2f}")
    if reference is not None:
        found.caption = f"published: {reference.source}"
