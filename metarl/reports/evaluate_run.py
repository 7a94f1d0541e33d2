"""``metarl evaluate``: a run's policy on held-out tasks, beside comparisons and published numbers."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from metarl.envs.fields import require, require_numbers
from metarl.evaluate import MetaTest, held_out_tasks, meta_test
from metarl.reports.figures import adaptation_figure
from metarl.reports.published import published, published_success
from metarl.reports.references import bounds, references
from metarl.reports.success import success_tables
from metarl.reports.tables import Plan, summarize, table
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.process import prepare_process
from metarl.runs.session import execute
from metarl.runs.snapshot import initial_progress, load_progress
from metarl.seeds import stream_seed
from metarl.train import Progress
from metarl.types import Agent


@dataclass(frozen=True)
class Protocol:
    """How a policy is tested."""

    tasks: int | None = None
    """Held-out tasks, the paper's own where they are known; by default 40, or 1000 for a learner that remembers; 50
    of a benchmark with several kinds of task."""
    episodes: int | None = None
    """Episodes of each task at each step; by default as many steps as in the paper, else as in training. Trials of each
    task for a learner that remembers: by default 1, or 4 where success is what counts."""
    steps: int | None = None
    """Inner steps, by default 3, or as in training where success is what counts; or episodes of a trial, by default as
    in training."""
    schedule: Literal["halved", "constant"] = "halved"
    """Step sizes: the learner's at the first step and half of it later (Finn et al. 2017; the ant's tasks: what their
    authors took), or always the same."""
    seed: int = 0
    """Seed of action and reset noise; the tasks do not depend on it."""

    def __post_init__(self) -> None:
        require_numbers(self)
        given = (name for name in ("tasks", "steps", "episodes") if getattr(self, name) is not None)
        require(self, *given, at_least=1)

    def plan(self, experiment: Experiment) -> Plan:
        """The protocol with the defaults of an experiment filled in."""
        benchmark = published_success(experiment.task) is not None
        if experiment.learner.remembers:
            num_tasks, num_trials = (50, 4) if benchmark else (1000, 1)
            num_tasks = min(num_tasks, experiment.task.num_test_tasks or num_tasks)
            trial = self.steps or experiment.episodes_per_env
            episodes = self.episodes or num_trials
            return Plan(self.tasks or num_tasks, episodes, scales=(), trial=trial, min_steps=0, seed=self.seed)
        reference = published(experiment.task)
        min_steps = reference.num_steps if reference is not None and self.episodes is None else 0
        num_episodes = self.episodes or min_steps // experiment.task.horizon or experiment.episodes
        later = 1.0 if self.schedule == "constant" else reference.later if reference is not None else 0.5
        num_steps = self.steps or (max(1, experiment.learner.adapt_steps) if benchmark else 3)
        scales, num_tasks = (1.0, *[later] * (num_steps - 1)), self.tasks or (50 if benchmark else 40)
        return Plan(num_tasks, num_episodes, scales=scales, trial=1, min_steps=min_steps, seed=self.seed)


class Contestant(NamedTuple):
    """A row of the table."""

    agent: Agent
    state: Any = None
    greedy: bool = False


def evaluate_run(
    run: Path, protocol: Protocol, *, pretrain_iterations: int | None, console: Console, device: str | None = None
) -> dict[str, MetaTest]:
    """Tests the run's newest checkpoint and its comparisons; writes ``evaluation.json``, a curve and a
    picture, or, where these are, ``evaluation-2.json`` and so on.

    Args:
        pretrain_iterations: iterations of the comparison that is trained on all tasks jointly without adaptation
            (its run lies inside ``run`` and is resumed or reused); None: for as many environment steps as ``run``
            took, or none where there are reference agents or published success rates; 0: leave it out.
        device: where to test; None: where the run was trained.

    Returns:
        The tests by row, the learner's first.
    """
    experiment = load_experiment(run, device)
    prepare_process(experiment.num_threads)
    progress = load_progress(experiment, run, console.print)
    plan = protocol.plan(experiment)
    agents = references(experiment.task, plan.trial)
    if pretrain_iterations is None:
        as_many_steps = progress.iteration * (1 + experiment.learner.adapt_steps)
        pretrain_iterations = 0 if agents or published_success(experiment.task) else as_many_steps
    rows = contestants(experiment, progress)
    if pretrain_iterations:
        name = "memoryless" if experiment.learner.remembers else "pretrained"
        rows[name] = pretrained(experiment, run, name, pretrain_iterations, console)
    rows |= {name: Contestant(agent) for name, agent in agents.items()}

    tasks = held_out_tasks(experiment.task, plan.tasks)
    results: dict[str, MetaTest] = {}
    for name, row in rows.items():
        console.print(f"testing {name} on {plan.tasks} held-out tasks")
        results[name] = meta_test(
            row.agent,
            row.state,
            experiment.make_env(plan.tasks, plan.episodes, stream=f"evaluation resets {plan.seed}"),
            tasks,
            scales=plan.scales,
            episodes=plan.trial,
            greedy=row.greedy,
            seed=stream_seed(plan.seed, "evaluation actions"),
            min_steps=plan.min_steps,
        )
    limits = bounds(experiment.task, tasks, plan.trial) if experiment.learner.remembers else {}
    record = summarize(experiment, plan, progress, results, tasks, limits)
    stem = run / next(name for name in evaluation_names() if not (run / f"{name}.json").exists())
    raw, picture = stem.with_suffix(".json"), stem.with_suffix(".png")
    raw.write_text(json.dumps(record) + "\n")
    log_curve(stem, next(iter(results.values())))
    adaptation_figure(record, picture)
    console.print(table(experiment, plan, results, limits))
    for found in success_tables(record["success"], published_success(experiment.task), plan.steps[-1]):
        console.print(found)
    console.print(f"raw returns: {raw} · picture: {picture}")
    return results


def evaluation_names() -> Iterator[str]:
    """evaluation, evaluation-2, evaluation-3 ...: a later one replaces none."""
    yield "evaluation"
    yield from (f"evaluation-{number}" for number in itertools.count(2))


def contestants(experiment: Experiment, progress: Progress) -> dict[str, Contestant]:
    """The learner as trained, with sampled (and, where it remembers, greedy) actions; and before training."""
    learner = experiment.learner
    name = type(learner).__name__
    rows = {name: Contestant(learner, progress.learner_state)}
    if learner.remembers:
        rows[f"{name}, greedy"] = Contestant(learner, progress.learner_state, greedy=True)
    rows["untrained"] = Contestant(learner, initial_progress(experiment).learner_state)
    return rows


def pretrained(experiment: Experiment, run: Path, name: str, iterations: int, console: Console) -> Contestant:
    """The same learner trained without adaptation; it is tested like the run's own learner."""
    learner = experiment.learner.without_adaptation()
    joint = replace(experiment, learner=learner, iterations=iterations, eval_interval=0)
    folder = run / name
    if not folder.exists():
        create_run(joint, run, name)
    console.print(f"training the comparison without adaptation for {iterations} iterations ({folder})")
    code = execute(joint, folder, console=console)
    if code:
        raise SystemExit(code)
    state = load_progress(joint, folder, console.print).learner_state
    return Contestant(learner if learner.remembers else experiment.learner, state)


def log_curve(folder: Path, result: MetaTest) -> None:
    """``meta_test/adaptation_curve``: mean return over inner steps or episodes, in a TensorBoard run of its own."""
    with SummaryWriter(str(folder)) as writer:
        for step, value in enumerate(result.returns.mean((0, 2))):
            writer.add_scalar("meta_test/adaptation_curve", float(value), step)
