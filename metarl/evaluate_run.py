"""``metarl evaluate``: a run's policy on held-out tasks, beside an untrained and a pretrained one and the paper's."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.tensorboard import SummaryWriter

from envs.api import BadField
from metarl import checkpoint
from metarl.config import to_json
from metarl.evaluate import HELD_OUT_SEED, Estimate, MetaTest, estimate, held_out_tasks, meta_test
from metarl.experiment import Experiment, create_run, load_experiment, versions
from metarl.plot import adaptation_figure
from metarl.published import published
from metarl.run import execute, prepare_process
from metarl.snapshot import initial_progress, restore_learner
from metarl.streams import stream_seed
from metarl.train import Progress

PRETRAINED = "pretrained"  # folder of the pretrained policy's run, inside the run it is compared with


@dataclass(frozen=True)
class Protocol:
    """How a policy is tested."""

    tasks: int = 40
    """Held-out tasks; the paper's own where they are known."""
    episodes: int | None = None
    """Episodes of each task at each step; by default as many steps as in the paper, else as in training."""
    steps: int = 3
    """Inner steps."""
    schedule: Literal["halved", "constant"] = "halved"
    """Step sizes: the learner's at the first step and half of it later (Finn et al. 2017), or always the same."""
    seed: int = 0
    """Seed of action and reset noise; the tasks do not depend on it."""

    def __post_init__(self) -> None:
        for name in ("tasks", "steps"):
            if getattr(self, name) < 1:
                raise BadField(f"{name} is {getattr(self, name)}: use at least 1")
        if self.episodes is not None and self.episodes < 1:
            raise BadField(f"episodes is {self.episodes}: use at least 1")

    @property
    def scales(self) -> list[float]:
        """The step sizes as multiples of the learner's."""
        later = 0.5 if self.schedule == "halved" else 1.0
        return [1.0] + [later] * (self.steps - 1)


def evaluate_run(
    run: Path, protocol: Protocol, *, pretrain_iterations: int | None, console: Console
) -> dict[str, MetaTest]:
    """Tests the run's newest checkpoint and its comparisons; writes ``evaluation.json``, a curve and a picture.

    Args:
        pretrain_iterations: iterations of the comparison that is trained on all tasks jointly without adaptation
            (its run lies inside ``run`` and is resumed or reused); None: as many as ``run`` has; 0: leave it out.

    Returns:
        The tests by row: the learner's class name, ``untrained``, ``pretrained``.
    """
    experiment = load_experiment(run)
    prepare_process(experiment.num_threads)
    progress = load_progress(experiment, run, console.print)
    name = type(experiment.learner).__name__
    states = {name: progress.learner_state, "untrained": fresh_progress(experiment).learner_state}
    if pretrain_iterations is None:
        pretrain_iterations = progress.iteration
    if pretrain_iterations:
        states[PRETRAINED] = pretrained_state(experiment, run, pretrain_iterations, console)
    reference = published(experiment.task)
    min_steps = reference.num_steps if reference is not None and protocol.episodes is None else 0
    num_episodes = protocol.episodes or min_steps // experiment.task.horizon or experiment.episodes
    tasks = held_out_tasks(experiment.task, protocol.tasks)
    results: dict[str, MetaTest] = {}
    for row, state in states.items():
        console.print(f"testing {row} on {protocol.tasks} held-out tasks")
        env = experiment.make_env(protocol.tasks, num_episodes, stream=f"evaluation resets {protocol.seed}")
        seed = stream_seed(protocol.seed, "evaluation actions")
        results[row] = meta_test(
            experiment.learner, state, env, tasks, scales=protocol.scales, seed=seed, min_steps=min_steps
        )
    has_success = experiment.task.spec.has_success
    record = summarize(experiment, protocol, progress, results, tasks, min_steps=min_steps, has_success=has_success)
    (run / "evaluation.json").write_text(json.dumps(record, indent=1) + "\n")
    log_curve(run, results[name])
    adaptation_figure(record, run / "evaluation.png")
    console.print(table(experiment, results, has_success=has_success))
    console.print(f"raw returns: {run / 'evaluation.json'} · picture: {run / 'evaluation.png'}")
    return results


def fresh_progress(experiment: Experiment) -> Progress:
    """The experiment before training; needs the environment's dimensions alone."""
    return initial_progress(experiment, experiment.task.spec)


def load_progress(experiment: Experiment, run: Path, warn: Callable[[str], None]) -> Progress:
    """The newest usable checkpoint of a run: counters and learner, without its worlds."""
    progress = fresh_progress(experiment)
    restore_learner(progress, checkpoint.load_newest(run / checkpoint.DIRECTORY, warn))
    return progress


def pretrained_state(experiment: Experiment, run: Path, iterations: int, console: Console) -> Any:
    """The policy that earns most on average over tasks: the same learner without inner steps, trained as long."""
    learner = replace(experiment.learner, adapt_steps=0)
    joint = replace(experiment, learner=learner, iterations=iterations, eval_interval=0)
    folder = run / PRETRAINED
    if not folder.exists():
        create_run(joint, run, PRETRAINED)
    console.print(f"training the comparison without inner steps for {iterations} iterations ({folder})")
    code = execute(joint, folder, console=console)
    if code:
        raise SystemExit(code)
    return load_progress(joint, folder, console.print).learner_state


def summarize(
    experiment: Experiment,
    protocol: Protocol,
    progress: Progress,
    results: dict[str, MetaTest],
    tasks: torch.Tensor,
    *,
    min_steps: int,
    has_success: bool,
) -> dict[str, Any]:
    """Everything a reader needs to recompute or doubt a number."""
    reference = published(experiment.task)
    rows = {row: row_record(result, has_success=has_success) for row, result in results.items()}
    own = rows.pop(type(experiment.learner).__name__)
    return {
        "protocol": {
            "task": experiment.task.name,
            "preset": experiment.preset,
            "algorithm": type(experiment.learner).__name__,
            "num_tasks": protocol.tasks,
            "num_episodes": results[next(iter(results))].returns.shape[2],
            "min_steps_per_adaptation": min_steps,
            "inner_lr": experiment.learner.inner_lr,
            "inner_lr_learned": experiment.learner.learn_inner_lr,
            "step_size_scales": protocol.scales,
            "actions": "sampled",
            "success": "at any step of an episode",
            "checkpoint": "newest",
            "iterations": progress.iteration,
            "env_steps": progress.env_steps,
            "task_seed": HELD_OUT_SEED if experiment.task.published_tasks(1) is None else "published tasks",
            "seed": protocol.seed,
            "layout": "[task][adaptation step][episode]",
        },
        **own,
        "comparisons": rows,
        "published": None if reference is None else reference._asdict(),
        "tasks": tasks.tolist(),
        "experiment": to_json(experiment),
        "versions": versions(),
    }


def row_record(result: MetaTest, *, has_success: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "returns": result.returns.tolist(),
        "mean": [e._asdict() for e in estimates(result, iqm=False)],
        "iqm": [e._asdict() for e in estimates(result, iqm=True)],
    }
    if has_success:
        record["successes"] = result.successes.tolist()
    return record


def estimates(result: MetaTest, *, iqm: bool) -> list[Estimate]:
    """One estimate an adaptation step, over the tasks' mean returns."""
    scores = result.returns.double().mean(2).cpu().numpy()
    return [estimate(scores[:, step], iqm=iqm) for step in range(scores.shape[1])]


def log_curve(run: Path, result: MetaTest) -> None:
    """``meta_test/adaptation_curve``: mean return over inner steps, in a TensorBoard run of its own."""
    with SummaryWriter(str(run / "evaluation")) as writer:
        for step, value in enumerate(result.returns.mean((0, 2))):
            writer.add_scalar("meta_test/adaptation_curve", float(value), step)


def table(experiment: Experiment, results: dict[str, MetaTest], *, has_success: bool) -> Table:
    """Mean, interquartile mean and its 95 % interval over tasks, and the published mean: a line each, by policy."""
    reference = published(experiment.task)
    num_steps = next(iter(results.values())).returns.shape[1]
    found = Table(title=f"{experiment.task.name} ({experiment.preset}): return on held-out tasks")
    found.add_column("policy")
    found.add_column("measure")
    for step in range(num_steps):
        found.add_column("before" if step == 0 else f"{step} step{'s' if step > 1 else ''}", justify="right")
    for row, result in results.items():
        means, middles = estimates(result, iqm=False), estimates(result, iqm=True)
        spread = result.returns.double().mean(2).std(0, correction=0).tolist()
        found.add_row(row, "mean", *[f"{e.value:.1f}" for e in means], style="bold")
        if reference is not None and row in reference.returns:
            found.add_row("", "published", *[f"{x:.1f}" for x in reference.returns[row][:num_steps]])
        found.add_row("", "sd over tasks", *[f"{x:.1f}" for x in spread])
        found.add_row("", "IQM", *[f"{e.value:.1f}" for e in middles])
        found.add_row("", "95 % of IQM", *[f"{e.low:.1f} .. {e.high:.1f}" for e in middles])
        if has_success:
            found.add_row("", "success", *[f"{x:.0%}" for x in result.successes.double().mean((0, 2)).tolist()])
        found.add_section()
    if reference is not None:
        found.caption = f"published: {reference.source}"
    return found
