"""``metarl evaluate``: a run's policy on held-out tasks, beside comparisons and published numbers."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rich.console import Console
from torch import Tensor

from metarl.envs.api import TaskEnv
from metarl.envs.fields import BadField, require, require_numbers
from metarl.evaluate import MetaTest, held_out_tasks, meta_test
from metarl.faults import Notices, check_test
from metarl.fewshot.evaluate import FewShotTest
from metarl.reports import examples
from metarl.reports.files import require_writable, write_evaluation
from metarl.reports.headline import headline
from metarl.reports.plan import Plan
from metarl.reports.published import published, published_success
from metarl.reports.references import bounds, references
from metarl.reports.success import success_tables
from metarl.reports.tables import summarize, table
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.process import prepare_process
from metarl.runs.session import execute
from metarl.runs.snapshot import initial_progress, load_chosen, load_progress
from metarl.runs.supervised import FewShotExperiment
from metarl.seeds import stream_seed
from metarl.train import Progress
from metarl.types import Agent, MetaLearner, remembers


@dataclass(frozen=True)
class Protocol:
    """How a policy is tested."""

    tasks: int | None = None
    """Held-out tasks, the paper's own where they are known; by default 40, or 1000 for a learner that remembers; 50
    of a benchmark with several kinds of task; 600 of examples."""
    episodes: int | None = None
    """Episodes of each task at each step; by default as many steps as in the paper, else as in training. Trials of each
    task for a learner that remembers: by default 1, or 4 where success is what counts. Of examples: draws of support
    and query set, by default 1."""
    adaptation_episodes: int | None = None
    """Episodes of each task that each inner step adapts to, by default those that are tested; where given, tests are
    episodes of their own. Of a trial: the episodes before its last one (in place of steps)."""
    steps: int | None = None
    """Inner steps, by default 3, or as in training where success is what counts, 10 on examples; or episodes of a
    trial, by default as in training."""
    schedule: Literal["halved", "constant"] | None = None
    """Step sizes: the learner's at the first step and half of it later (Finn et al. 2017; the ant's tasks: what their
    authors took), or always the same; by default halved, and on examples constant."""
    seed: int = 0
    """Seed of action and reset noise; the tasks do not depend on it."""

    def __post_init__(self) -> None:
        require_numbers(self)
        counts = ("tasks", "steps", "episodes", "adaptation_episodes")
        require(self, *(name for name in counts if getattr(self, name) is not None), at_least=1)

    def plan(self, experiment: Experiment) -> Plan:
        """The protocol with the defaults of an experiment filled in."""
        benchmark = published_success(experiment.task) is not None
        if remembers(experiment.learner):
            num_tasks, num_trials = (50, 4) if benchmark else (1000, 1)
            num_tasks = min(num_tasks, experiment.task.num_test_tasks or num_tasks)
            if self.steps is not None and self.adaptation_episodes is not None:
                raise BadField(
                    f"adaptation_episodes is {self.adaptation_episodes}, steps is {self.steps}: both say how long a "
                    "trial is, use one of them"
                )
            trial = self.adaptation_episodes + 1 if self.adaptation_episodes else self.steps
            trial = trial or experiment.episodes_per_env
            return Plan(
                self.tasks or num_tasks,
                self.episodes or num_trials,
                experiment.learner.stages(trial),
                min_steps=0,
                adaptation_episodes=trial - 1,
                seed=self.seed,
            )
        reference = published(experiment.task)
        as_published = self.episodes is None and self.adaptation_episodes is None
        min_steps = reference.num_steps if reference is not None and as_published else 0
        num_episodes = self.episodes or min_steps // experiment.task.horizon or experiment.episodes
        later = 1.0 if self.schedule == "constant" else reference.later if reference is not None else 0.5
        num_steps = self.steps or (max(1, experiment.learner.adapt_steps) if benchmark else 3)
        return Plan(
            self.tasks or (50 if benchmark else 40),
            num_episodes,
            experiment.learner.stages(1, steps=num_steps, later=later),
            min_steps=min_steps,
            adaptation_episodes=self.adaptation_episodes or num_episodes,
            seed=self.seed,
        )


class Contestant(NamedTuple):
    """A row of the table."""

    agent: Agent
    state: Any = None
    greedy: bool = False


def evaluate_run(
    run: Path,
    protocol: Protocol,
    *,
    pretrain_iterations: int | None,
    console: Console,
    device: str | None = None,
    out: Path | None = None,
    full: bool = True,
    checkpoint: str = "last",
) -> dict[str, MetaTest] | dict[str, FewShotTest]:
    """Tests a checkpoint of a run and its comparisons; shows a table, then writes ``evaluation.json``, curves and
    a picture, or, where these are, ``evaluation-2.json`` and so on.

    Args:
        pretrain_iterations: iterations of the comparison that is trained on all tasks jointly without adaptation
            (its run lies inside ``out`` and is resumed or reused); None: for as many environment steps as ``run``
            took, or none where there are reference agents or published success rates; 0: leave it out.
        device: where to test; None: where the run was trained.
        out: the folder to write to; None: the run.
        full: whether the table has spread and interquartile means, too.
        checkpoint: last, best (by validation), or the number of an iteration that the run keeps.

    Returns:
        The tests by row, the learner's first.

    Raises:
        ValueError: not a run folder, or a folder that cannot be written, before any work.
    """
    if pretrain_iterations is not None and pretrain_iterations < 0:
        raise BadField(f"pretrain_iterations is {pretrain_iterations}: use at least 0, which leaves the comparison out")
    say = partial(console.print, markup=False, highlight=False)
    experiment = load_experiment(run, device)
    if isinstance(experiment, FewShotExperiment):
        return _evaluate_on_examples(
            experiment, run, protocol, pretrain_iterations, console, require_writable(run if out is None else out)
        )
    plan = protocol.plan(experiment)
    loaded = load_chosen(experiment, run, checkpoint, say)
    progress = loaded.progress
    folder = require_writable(run if out is None else out)
    prepare_process(experiment.num_threads)
    agents = references(experiment.task, plan.trial) if remembers(experiment.learner) else {}  # they play trials
    if pretrain_iterations is None:
        as_many_steps = progress.iteration * (1 + experiment.learner.adapt_steps)
        pretrain_iterations = 0 if agents or published_success(experiment.task) else as_many_steps
    rows = contestants(experiment, progress)
    if pretrain_iterations:
        name = "memoryless" if remembers(experiment.learner) else "pretrained"
        rows |= both_ways(experiment, name, *pretrained(experiment, folder, name, pretrain_iterations, console))
    rows |= {name: Contestant(agent) for name, agent in agents.items()}

    tasks = held_out_tasks(experiment.task, plan.tasks)
    labels, notice = experiment.task.labels(tasks), Notices(console)
    say(f"checkpoint {checkpoint}: {loaded.describe()}")
    results: dict[str, MetaTest] = {}
    for name, row in rows.items():
        say(f"testing {name} on {plan.tasks} held-out tasks")
        results[name], env = _test(experiment, plan, row, tasks)
        check_test(results[name], env, experiment.task, tasks, notice, labels=labels)
    limits = bounds(experiment.task, tasks, plan.trial) if remembers(experiment.learner) else {}
    record = summarize(experiment, plan, loaded, results, tasks, limits)
    console.print(table(experiment, plan, loaded, results, limits, full=full))
    own, found = next(iter(results)), published_success(experiment.task)
    note = "" if found is None else found.caption(own, plan.adaptation_episodes)
    if record["success"]:
        for part in success_tables(record["success"], own=own, when=plan.steps[-1], note=note):
            console.print(part)
    written = write_evaluation(folder, record)
    say(f"raw returns: {written} · picture: {written.with_suffix('.png')}")
    say(headline(plan, results, has_success=experiment.task.spec.has_success))
    return results


def _evaluate_on_examples(
    experiment: FewShotExperiment,
    run: Path,
    protocol: Protocol,
    pretrain_iterations: int | None,
    console: Console,
    folder: Path,
) -> dict[str, FewShotTest]:
    """The same for supervised tasks; the comparison without adaptation is of learners that have inner steps."""
    plan = examples.plan_of(protocol, experiment)
    progress = load_progress(experiment, run, partial(console.print, markup=False, highlight=False))
    prepare_process(experiment.num_threads)
    rows = examples.own_rows(experiment, progress)
    compares = hasattr(experiment.learner, "without_adaptation")
    if pretrain_iterations is None:  # labels of a classification mean another thing in every task
        pretrain_iterations = progress.iteration if compares and not experiment.task.spec.discrete else 0
    if pretrain_iterations and not compares:
        raise BadField(f"pretrain_iterations is {pretrain_iterations}: {experiment.learner.called} has no comparison")
    if pretrain_iterations:
        joint, state = pretrained(experiment, folder, "pretrained", pretrain_iterations, console)
        rows["pretrained"] = examples.Row(joint, state)
    return examples.report(experiment, plan, progress, rows, folder, console)


def _test(experiment: Experiment, plan: Plan, row: "Contestant", tasks: Tensor) -> tuple[MetaTest, TaskEnv]:
    """Tests a row of the table: greedy episodes, and other numbers of them than adaptation sees, are played apart.

    Returns:
        What was earned, and the worlds it was earned in.
    """
    spec, by_gradient = experiment.task.spec, bool(plan.scales)
    adapts_apart = by_gradient and plan.adaptation_episodes != plan.episodes
    greedy_apart = row.greedy and (by_gradient or (spec.has_success and not spec.terminates))
    worlds = plan.adaptation_episodes if by_gradient else plan.episodes
    apart = None
    if adapts_apart or greedy_apart:
        apart = experiment.make_env(plan.tasks, plan.episodes, stream=f"separate test resets {plan.seed}")
    env = experiment.make_env(plan.tasks, worlds, stream=f"evaluation resets {plan.seed}")
    result = meta_test(
        row.agent,
        row.state,
        env,
        tasks,
        scales=plan.scales,
        episodes=plan.trial,
        greedy=row.greedy,
        seed=stream_seed(plan.seed, "evaluation actions"),
        min_steps=plan.min_steps,
        tests=apart,
    )
    return result, env if apart is None else apart


def contestants(experiment: Experiment, progress: Progress) -> dict[str, Contestant]:
    """The learner as trained, with sampled and with greedy actions; and before training."""
    learner = experiment.learner
    rows = both_ways(experiment, type(learner).__name__, learner, progress.learner_state, always=True)
    return rows | both_ways(experiment, "untrained", learner, initial_progress(experiment).learner_state)


def both_ways(
    experiment: Experiment, name: str, learner: MetaLearner, state: Any, *, always: bool = False
) -> dict[str, Contestant]:
    """A row of sampled actions, and where success counts (or always) one of greedy ones."""
    rows = {name: Contestant(learner, state)}
    if always or experiment.task.spec.has_success:
        rows[f"{name}, greedy"] = Contestant(learner, state, greedy=True)
    return rows


def pretrained(experiment: Experiment, root: Path, name: str, iterations: int, console: Console) -> tuple[Any, Any]:
    """The same learner trained without adaptation, to be tested like the run's own; and what it learned."""
    learner = experiment.learner.without_adaptation()
    joint = replace(experiment, learner=learner, iterations=iterations, eval_interval=0, validation_interval=0)
    joint = replace(joint, patience=0, init_from="")
    folder = root / name
    if not folder.exists():
        create_run(joint, root, name)
    console.print(f"training the comparison without adaptation for {iterations} iterations ({folder})", markup=False)
    code = execute(joint, folder, console=console)
    if code:
        raise SystemExit(code)
    state = load_progress(joint, folder, partial(console.print, markup=False)).learner_state
    return learner if remembers(learner) else experiment.learner, state
