"""``metarl evaluate --perturb``: return against the strength of perturbations that no training saw."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from metarl.envs.api import TaskEnv
from metarl.envs.fields import BadField
from metarl.evaluate import HELD_OUT_SEED, MetaTest, held_out_tasks
from metarl.perturbations import PERTURBATIONS, named, perturbed
from metarl.reports.evaluate_run import Contestant, Protocol, play_row
from metarl.reports.files import require_writable, write_record
from metarl.reports.panels import finish, legend
from metarl.reports.plan import Plan
from metarl.reports.tables import row_record
from metarl.reports.titles import task_title
from metarl.runs.config import to_json
from metarl.runs.experiment import Experiment
from metarl.runs.folder import load_experiment
from metarl.runs.process import prepare_process
from metarl.runs.snapshot import load_chosen
from metarl.runs.supervised import FewShotExperiment
from metarl.runs.versions import versions
from metarl.seeds import stream, stream_seed

COLORS = ("tab:gray", "tab:blue")  # before and after adaptation


def evaluate_perturbed(
    run: Path,
    protocol: Protocol,
    *,
    perturb: str,
    strengths: Sequence[float] = (),
    console: Console,
    device: str | None = None,
    out: Path | None = None,
    checkpoint: str = "last",
) -> dict[str, dict[float, MetaTest]]:
    """Tests a checkpoint of a run under each perturbation at each strength, with the tasks, the noise and the first
    states of the plain evaluation; shows a table, and writes ``robustness.json`` and a picture.

    The perturbation is there from the first episode on, so that the learner adapts to it, too. Actions are sampled;
    where success is what counts, tests are of greedy ones, as in the headline of the plain evaluation.

    Args:
        perturb: names of :data:`metarl.perturbations.PERTURBATIONS`, with commas.
        strengths: those to test, of a single perturbation; else each one's own. 0 is always among them.

    Returns:
        The tests by perturbation and strength.

    Raises:
        BadField: a perturbation that there is not, or that the task has nothing for, before any work.
    """
    say = partial(console.print, markup=False, highlight=False)
    experiment = load_experiment(run, device)
    if isinstance(experiment, FewShotExperiment):
        raise BadField(f"perturb is {perturb!r}: {experiment.task.name} has examples and no worlds, leave it out")
    ladders = _ladders(experiment, named(perturb), strengths)
    plan = protocol.plan(experiment)
    loaded = load_chosen(experiment, run, checkpoint, say)
    folder = require_writable(run if out is None else out)
    prepare_process(experiment.num_threads)
    has_success = experiment.task.spec.has_success
    row = Contestant(experiment.learner, loaded.progress.learner_state, greedy=has_success)
    tasks = held_out_tasks(experiment.task, plan.tasks)
    say(f"checkpoint {checkpoint}: {loaded.describe()}")

    def tested(name: str, strength: float) -> MetaTest:
        say(f"testing {name} {strength:g}" if strength else "testing without perturbation")
        return play_row(experiment, plan, row, tasks, _change(experiment, name, strength, plan.seed))[0]

    plain = tested("", 0.0)
    results = {
        name: {strength: tested(name, strength) if strength else plain for strength in ladder}
        for name, ladder in ladders.items()
    }
    record = {
        "protocol": {
            "task": experiment.task.name,
            "title": f"{task_title(experiment.task)}: robustness on {plan.tasks} held-out tasks, {loaded.describe()}",
            "algorithm": type(experiment.learner).__name__,
            "actions": "greedy in tests, sampled where adaptation sees them" if has_success else "sampled",
            "num_tasks": plan.tasks,
            "num_episodes": plan.episodes,
            "adaptation_episodes": plan.adaptation_episodes,
            "step_size_scales": list(plan.scales),
            "steps": plan.steps,
            "checkpoint": loaded.asked,
            "iterations": loaded.progress.iteration,
            "task_seed": HELD_OUT_SEED if experiment.task.published_tasks(1) is None else "published tasks",
            "seed": plan.seed,
        },
        "perturbations": {
            name: {"meaning": PERTURBATIONS[name].meaning, "strengths": list(found)}
            | {"results": [_entry(plan, result, has_success) for result in found.values()]}
            for name, found in results.items()
        },
        "experiment": to_json(experiment),
        "versions": versions(),
    }
    console.print(table(record))
    written = write_record(folder, "robustness", record, partial(picture, record))
    say(f"by strength: {written} · picture: {written.with_suffix('.png')}")
    return results


def _ladders(experiment: Experiment, names: Sequence[str], strengths: Sequence[float]) -> dict[str, list[float]]:
    """The strengths of each perturbation in ascending order, each tried on an environment of one world."""
    if not names:
        raise BadField(f"perturb is empty: use some of {','.join(PERTURBATIONS)}")
    if strengths and len(names) > 1:
        raise BadField(f"strengths is {tuple(strengths)}: each perturbation has its own, give one of them at a time")
    found = {}
    for name in names:
        asked = strengths or PERTURBATIONS[name].strengths
        if name == "delay" and not strengths:
            asked = [steps for steps in asked if steps < experiment.task.horizon]
        found[name] = sorted({0.0, *map(float, asked)})
        for strength in found[name]:
            env = experiment.make_env(1, 1, stream="perturbation")
            perturbed(env, name, strength, stream(0, "perturbation", device=experiment.device))
    return found


def _change(experiment: Experiment, name: str, strength: float, seed: int) -> Any:
    """What changes an environment; each has its own noise, the same at every strength."""
    made = 0

    def change(env: TaskEnv) -> TaskEnv:
        nonlocal made
        made += 1
        if not strength:
            return env
        draws = stream(stream_seed(experiment.seed, "perturbation", seed), name, made, device=str(env.device))
        return perturbed(env, name, strength, draws)

    return change


def _entry(plan: Plan, result: MetaTest, has_success: bool) -> dict[str, Any]:
    """Means by inner step or episode, and of success at the end of an episode."""
    record = row_record(plan, result, has_success, raw=False)
    if has_success:
        record["success"] = result.known(result.solved_at_end).nanmean((0, 2)).tolist()
    return record


def table(record: dict[str, Any]) -> Table:
    """Return before and after adaptation with its interval, a line for each strength."""
    protocol = record["protocol"]
    shown = _shown(protocol["steps"])
    found = Table(title=Text(protocol["title"]))
    found.add_column("perturbation")
    found.add_column("strength", justify="right")
    for k in shown:
        found.add_column(protocol["steps"][k], justify="right")
        found.add_column("95 %", justify="right")
    has_success = any("success" in row for part in record["perturbations"].values() for row in part["results"])
    if has_success:
        found.add_column(f"success, {protocol['steps'][-1]}", justify="right")
    for name, part in record["perturbations"].items():
        for strength, row in zip(part["strengths"], part["results"], strict=True):
            cells = []
            for k in shown:
                mean = row["mean"][k]
                cells += [f"{mean['value']:.1f}", f"{mean['low']:.1f} .. {mean['high']:.1f}"]
            success = [f"{row['success'][-1]:.0%}"] if has_success else []
            style = None if strength else "bold"
            found.add_row(Text(name), f"{strength:g}", *cells, *success, style=style)
        found.add_section()
    meanings = " ".join(f"{name}: {part['meaning']}." for name, part in record["perturbations"].items())
    found.caption = Text(
        f"{meanings} 0 is the task as it is. Mean return; actions are {protocol['actions']}. 95 %: from resampling the "
        "tasks."
    )
    return found


def _shown(steps: Sequence[str]) -> list[int]:
    return sorted({0, len(steps) - 1})


def picture(record: dict[str, Any], file: Path | IO[bytes]) -> None:
    """A panel for each perturbation: return against strength, before and after adaptation, with 95 % bands."""
    parts, protocol = record["perturbations"], record["protocol"]
    figure = Figure(figsize=(max(6.2, 3.6 * len(parts)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
    for axes, (name, part) in zip(panels, parts.items(), strict=True):
        for k, color in zip(_shown(protocol["steps"]), COLORS, strict=False):
            means = [row["mean"][k] for row in part["results"]]
            axes.plot(
                part["strengths"], [e["value"] for e in means], color=color, marker=".", label=protocol["steps"][k]
            )
            low, high = ([e[end] for e in means] for end in ("low", "high"))
            axes.fill_between(part["strengths"], low, high, color=color, alpha=0.15, linewidth=0)
        axes.axvline(0, color="0.6", linestyle=":", linewidth=1)
        axes.set_xlabel(name)
        finish(axes)
    panels[0].set_ylabel("mean return")
    figure.suptitle(f"{protocol['algorithm']} on {protocol['task']}", fontsize=11)
    legend(figure, ncols=2)
    figure.savefig(file, dpi=130)
