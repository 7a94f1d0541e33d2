"""What a success rate of Meta-World is worth: what noise, and a policy of one fixed point, score under each measure.

    python experiments/what_success_measures.py [--goals 50] [--seeds 3] [--run runs/push_pretrained]

None of these policies adapts or sees a goal. ``uniform`` takes random actions; ``untrained`` is the network that a run
begins with; ``fixed point`` brings the hand (reach) or the object to the middle of the training goals, wherever the
goal is. Greedy rows take the most likely action; ``+ noise`` adds a normal of standard deviation 0.5 or 1 to it, ML1's
noise when its training begins. ``--run`` adds the policy of a run folder before any adaptation. Episodes are measured
as ``metarl evaluate`` measures them. Writes the table as CSV, to experiments/results unless ``--out`` says otherwise.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

import metarl
from metarl.algorithms.rl2 import RL2
from metarl.cli.parse import parse
from metarl.envs.fields import BadField, require
from metarl.envs.registry import TaskDistribution, find_preset
from metarl.evaluate import held_out_tasks, meta_test
from metarl.networks.distributions import DiagGaussian
from metarl.presets import make
from metarl.reports.published import published_success
from metarl.reports.success import success_record
from metarl.runs.process import errors_in_one_sentence, prepare_process
from metarl.seeds import stream
from metarl.types import Agent, Previous

EPISODES = 3  # of each goal: those that Meta-World counts
HAND, OBJECT = slice(0, 3), slice(4, 7)  # of an observation [m]
GOAL = slice(4, 7)  # of a task parameter, where the environment draws object and goal
ML1 = ("reach-v3", "push-v3", "pick-place-v3")
MEASURES = {
    "at the end": ("end", 0, "value"),
    "last 50": ("last_50", 0),
    "any": ("any", 0),
    "first 3 to finish": ("first_finished",),
    "return": ("return", 0),
}


@dataclass(frozen=True)
class Options:
    goals: int = 50
    """Held-out goals of each benchmark."""
    seeds: int = 3
    """Untrained networks, and seeds of noise."""
    benchmark: str = ""
    """One of reach-v3, push-v3, pick-place-v3, ml10; by default all."""
    run: Path | None = None
    """A run folder, whose policy is measured without adaptation on its own benchmark."""
    out: Path = Path(__file__).parent / "results" / "what_success_measures.csv"
    """The CSV file to write."""
    num_threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        require(self, "goals", "seeds", "num_threads", at_least=1)
        if self.benchmark not in ("", *ML1, "ml10"):
            raise BadField(f"benchmark is {self.benchmark!r}: use one of {', '.join(ML1)}, ml10")


class Uniform(NamedTuple):
    """Actions in [-1, 1], all equally likely."""

    zeros: Float[Tensor, "*batch act"]

    def sample(self, generator: torch.Generator) -> Float[Tensor, "*batch act"]:
        return 2 * torch.rand(self.zeros.shape, generator=generator) - 1

    def log_prob(self, action: Float[Tensor, "*batch act"]) -> Float[Tensor, "*batch"]:
        return -math.log(2) * torch.ones_like(action).sum(-1)


class Scripted:
    """Remembers nothing: an agent is a distribution of actions given the observation."""

    def actor(self, state: Any, num_tasks: int) -> None:
        return None

    def act(self, actor: None, obs: Tensor, previous: Previous, generator: torch.Generator) -> tuple[Tensor, Any, None]:
        dist = self.dist(obs)
        return dist.sample(generator), dist, actor

    def dist(self, obs: Tensor) -> Any:
        return Uniform(obs[..., :4] * 0)


@dataclass(frozen=True)
class FixedPoint(Scripted):
    """Brings the hand, or the object in its grip, to one point whatever the goal."""

    point: tuple[float, ...]
    carries: bool
    noise: float
    """Standard deviation added to every action."""

    def dist(self, obs: Tensor) -> DiagGaussian:
        hand, point = obs[..., HAND], obs.new_tensor(self.point)
        closes = torch.zeros_like(hand[..., :1])
        if self.carries:
            obj = obs[..., OBJECT]
            above = (hand - obj)[..., :2].norm(dim=-1, keepdim=True) < 0.02
            around = above & ((hand - obj)[..., 2:].abs() < 0.035)
            over, at = obj + obs.new_tensor([0.0, 0.0, 0.15]), obj + obs.new_tensor([0.0, 0.0, 0.02])
            gripped = around & (obs[..., 3:4] < 0.75)  # the fingers are on the object
            to = torch.where(gripped, point, torch.where(above, at, over))
            closes = torch.where(around, 1.0, -1.0)
        else:
            to = point
        mean = torch.cat([(10 * (to - hand)).clamp(-1, 1), closes], dim=-1)
        return DiagGaussian(mean, torch.full_like(mean, math.log(max(self.noise, 1e-6))))


class Row(NamedTuple):
    """A policy, for each of several seeds."""

    task: TaskDistribution
    agents: tuple[tuple[Agent, Any], ...]
    """And their states."""
    greedy: bool = False


def rows(benchmark: str, seeds: int) -> dict[str, Row]:
    """The policies measured on a benchmark."""
    name = benchmark if benchmark == "ml10" else "ml1"
    plain, tuned = find_preset(name), make(name, "maml")
    scaled = tuned.task
    if name == "ml1":
        plain, scaled = (replace(task, env=benchmark) for task in (plain, scaled))
    untrained = tuple(
        (tuned.learner, tuned.learner.init(scaled.spec, stream(seed, "parameters"))) for seed in range(seeds)
    )
    found = {
        "uniform": Row(plain, ((Scripted(), None),) * seeds),
        "untrained, sampled": Row(scaled, untrained),
        "untrained, greedy": Row(scaled, untrained, greedy=True),
    }
    if name == "ml10":  # each of its environments has goals of its own
        return found
    point = tuple(plain.train_goals[benchmark][:, GOAL].mean(0).tolist())
    scripts = {noise: FixedPoint(point, benchmark != "reach-v3", noise) for noise in (0.0, 0.5, 1.0)}
    return found | {
        "fixed point": Row(plain, ((scripts[0.0], None),), greedy=True),
        "fixed point + noise 0.5": Row(plain, ((scripts[0.5], None),) * seeds),
        "fixed point + noise 1": Row(plain, ((scripts[1.0], None),) * seeds),
    }


def of_run(run: Path) -> tuple[str, dict[str, Row]]:
    """The benchmark of a run, and its policy without adaptation."""
    trained = metarl.load(run)
    benchmark = getattr(trained.task, "env", trained.task.name)
    agents = ((trained.learner, trained.state),)
    kind = type(trained.learner).__name__ + (", first episode" if isinstance(trained.learner, RL2) else "")
    names = {f"{run.name} ({kind}), {how}": how == "greedy" for how in ("sampled", "greedy")}
    return benchmark, {name: Row(trained.task, agents, greedy) for name, greedy in names.items()}


def measured(row: Row, goals: int, num_threads: int) -> dict[str, list[float]]:
    """Each measure, for each seed of a row."""
    tasks = held_out_tasks(row.task, goals)
    labels = row.task.labels(tasks) or [row.task.name] * goals
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for seed, (agent, state) in enumerate(row.agents):
        env = row.task.make(goals, EPISODES, seed=seed, num_threads=num_threads)
        result = meta_test(agent, state, env, tasks, episodes=1, greedy=row.greedy, seed=seed)
        known = published_success(row.task)
        record: Any = success_record({"": result}, labels, horizon=row.task.horizon, published=known)[""]["all"]
        for measure, path in MEASURES.items():
            value = record
            for key in path:
                value = value[key]
            found[measure].append(float(value))
    return found


def lines(options: Options) -> Iterator[tuple[str, str, dict[str, list[float]]]]:
    if options.run is not None:
        benchmark, own = of_run(options.run)
        if options.benchmark not in ("", benchmark):
            raise BadField(f"benchmark is {options.benchmark!r}: {options.run} was trained on {benchmark}")
        for name, row in own.items():
            yield benchmark, name, measured(row, options.goals, options.num_threads)
    for benchmark in [options.benchmark] if options.benchmark else [*ML1, "ml10"]:
        for name, row in rows(benchmark, options.seeds).items():
            yield benchmark, name, measured(row, options.goals, options.num_threads)


def main() -> None:
    with errors_in_one_sentence():
        options: Options = parse(Options, None, description=__doc__)
        prepare_process(options.num_threads)
        table = Table(title=f"{options.goals} held-out goals, {EPISODES} episodes of each, no adaptation")
        for heading in ("benchmark", "policy", *MEASURES):
            table.add_column(heading, justify="left" if heading in ("benchmark", "policy") else "right")
        written = []
        for benchmark, name, found in lines(options):
            means = {measure: float(np.mean(values)) for measure, values in found.items()}
            shown = [f"{mean:.0f}" if measure == "return" else f"{mean:.1%}" for measure, mean in means.items()]
            table.add_row(benchmark, name, *shown)
            for measure, values in found.items():
                span = (len(values), f"{means[measure]:.4f}", f"{min(values):.4f}", f"{max(values):.4f}")
                written.append((benchmark, name, measure, *span))
    Console(width=150).print(table)
    with options.out.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(
            [("benchmark", "policy", "measure", "seeds", "mean", "lowest", "highest"), *written]
        )


if __name__ == "__main__":
    main()
