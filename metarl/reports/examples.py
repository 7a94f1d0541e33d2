"""``metarl evaluate`` of a few-shot run: error or accuracy on held-out tasks by inner step, beside comparisons."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.envs.fields import BadField
from metarl.evaluate import HELD_OUT_SEED
from metarl.fewshot import FewShotLearner, Nearest
from metarl.fewshot.evaluate import FewShotTest, few_shot_test
from metarl.reports.files import write_evaluation
from metarl.reports.statistics import Estimate, estimate
from metarl.reports.titles import task_title
from metarl.runs.config import to_json
from metarl.runs.snapshot import initial_progress
from metarl.runs.supervised import FewShotExperiment
from metarl.runs.versions import versions
from metarl.seeds import stream_seed
from metarl.train import Progress
from metarl.types import Stage, inner_scales

NUM_TASKS, NUM_STEPS = 600, 10
NOTES = {
    "untrained": "untrained: the same learner before training.",
    "pretrained": "pretrained: the same network trained on all tasks at once without adapting, then adapted alike.",
    "Nearest": "Nearest: the label of the nearest support example, by the inputs themselves.",
}


class ExamplesPlan(NamedTuple):
    """A test, every default filled in."""

    tasks: int
    episodes: int
    """Draws of support and query examples of each task."""
    stages: list[Stage]
    """How it adapts."""
    seed: int


class Row(NamedTuple):
    """A row of the table."""

    learner: FewShotLearner
    state: Any


def plan_of(asked: Any, experiment: FewShotExperiment) -> ExamplesPlan:
    """The protocol with the defaults of an experiment filled in.

    Args:
        asked: :class:`metarl.reports.evaluate_run.Protocol`.

    Raises:
        BadField: an option that tasks of examples do not have.
    """
    if asked.adaptation_episodes is not None:
        raise BadField(
            f"adaptation_episodes is {asked.adaptation_episodes}: {experiment.task.name} adapts to its support set, "
            "leave it out"
        )
    learner = experiment.learner
    if asked.steps is not None and not learner.adapt_steps:
        raise BadField(f"steps is {asked.steps}: {learner.called} takes no inner steps, leave it out")
    later = 0.5 if asked.schedule == "halved" else 1.0
    stages = learner.stages(1, steps=asked.steps or max(NUM_STEPS, learner.adapt_steps), later=later)
    return ExamplesPlan(asked.tasks or NUM_TASKS, asked.episodes or 1, stages, asked.seed)


def test_rows(rows: dict[str, Row], experiment: FewShotExperiment, plan: ExamplesPlan) -> dict[str, FewShotTest]:
    """Every row on the same tasks and examples."""
    return {
        name: few_shot_test(
            row.learner,
            row.state,
            experiment.task,
            num_tasks=plan.tasks,
            scales=inner_scales(plan.stages),
            episodes=plan.episodes,
            seed=stream_seed(plan.seed, "evaluation"),
            device=experiment.device,
        )
        for name, row in rows.items()
    }


def own_rows(experiment: FewShotExperiment, progress: Progress) -> dict[str, Row]:
    """The learner as trained and before training, and the nearest neighbour."""
    learner = experiment.learner
    nearest = Nearest()
    rows = {type(learner).__name__: Row(learner, progress.learner_state)}
    if type(learner) is not Nearest:
        rows["untrained"] = Row(learner, initial_progress(experiment).learner_state)
    return rows | {"Nearest": Row(nearest, progress.learner_state)}


def report(
    experiment: FewShotExperiment,
    plan: ExamplesPlan,
    progress: Progress,
    rows: dict[str, Row],
    folder: Path,
    console: Console,
) -> dict[str, FewShotTest]:
    """Tests the rows, shows a table, and writes ``evaluation.json`` and its picture."""
    say = partial(console.print, markup=False, highlight=False)
    say(f"testing {', '.join(rows)} on {plan.tasks} held-out tasks")
    results = test_rows(rows, experiment, plan)
    record = summarize(experiment, plan, progress, results)
    console.print(table(record))
    written = write_evaluation(folder, record)
    say(f"scores by task: {written} · picture: {written.with_suffix('.png')}")
    own = record["mean"]
    say(f"held-out: {record['protocol']['measure']} " + " → ".join(f"{own[k]['value']:.3f}" for k in shown(len(own))))
    return results


def shown(num_columns: int) -> list[int]:
    """The columns that a line has room for: before, after one step, and after all."""
    return sorted({0, min(1, num_columns - 1), num_columns - 1})


def scores(result: FewShotTest) -> list[Estimate]:
    """The measure that counts, by step: mean over tasks with its interval."""
    measured = result.loss if result.accuracy is None else result.accuracy
    return [estimate(column.double().cpu().numpy(), iqm=False) for column in measured.T]


def summarize(
    experiment: FewShotExperiment, plan: ExamplesPlan, progress: Progress, results: dict[str, FewShotTest]
) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    own, *others = results
    task, spec = experiment.task, experiment.task.spec
    measure = "accuracy" if spec.discrete else "mean squared error"
    done, asked = progress.iteration, experiment.iterations
    tested = f"iteration {done}" if done >= asked else f"unfinished: {done} of {asked} iterations"
    return {
        "protocol": {
            "task": task.name,
            "title": f"{task_title(task)}: {measure} on {plan.tasks} held-out tasks, {tested}",
            "measure": measure,
            "preset": experiment.preset,
            "algorithm": own,
            "num_tasks": plan.tasks,
            "num_episodes": plan.episodes,
            "shots": task.shots,
            "queries": task.queries,
            "step_size_scales": inner_scales(plan.stages),
            "steps": [stage.label for stage in plan.stages],
            "checkpoint": "newest",
            "iterations": progress.iteration,
            "iterations_asked": experiment.iterations,
            "examples": progress.env_steps,
            "task_seed": HELD_OUT_SEED,
            "seed": plan.seed,
            "layout": "[task][adaptation step], query examples averaged",
        },
        **row_record(results[own]),
        "comparisons": {row: row_record(results[row]) for row in others},
        "success": {},
        "published": None,
        "experiment": to_json(experiment),
        "versions": versions(),
    }


def row_record(result: FewShotTest) -> dict[str, Any]:
    right = {} if result.accuracy is None else {"accuracy": result.accuracy.tolist()}
    return {"mean": [e._asdict() for e in scores(result)], "loss": result.loss.tolist(), **right}


def table(record: dict[str, Any]) -> Table:
    """Means with their intervals, by row and inner step."""
    protocol = record["protocol"]
    found = Table(title=Text(protocol["title"]))
    found.add_column("learner")
    found.add_column("measure")
    for step in protocol["steps"]:
        found.add_column(step, justify="right")
    rows = {protocol["algorithm"]: record, **record["comparisons"]}
    for name, row in rows.items():
        means = row["mean"]
        blank = [""] * (len(protocol["steps"]) - len(means))  # what has no steps has adapted at once
        found.add_row(Text(name), "mean", *blank, *(f"{e['value']:.3f}" for e in means), style="bold")
        found.add_row("", "95 %", *blank, *(f"{e['low']:.3f} .. {e['high']:.3f}" for e in means))
        found.add_section()
    notes = ["95 %: interval of the mean above it, from resampling the tasks (bootstrap)."]
    found.caption = Text(" ".join([*notes, *(text for row, text in NOTES.items() if row in rows)]))
    return found
