"""VariBAD and RL² on GridNavi (Zintgraf et al. 2020, section 5.1) beside the Bayes-optimal return of every episode.

    python experiments/varibad_grid_navi.py [--learners varibad,rl2] [--seeds 0,1,2] [--iterations 400]

Trains each preset ``tuned`` of ``grid_navi`` in a run folder, or takes the run that is there; plays every goal in many
trials, with sampled and with greedy actions; prints the mean return by episode, and of VariBAD how far its decoded
belief is from the exact posterior (total variation), by the number of steps of a trial. Numbers by seed go to a CSV.
"""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import metarl
from metarl.algorithms.varibad import VariBAD
from metarl.cli.parse import parse
from metarl.envs.fields import require
from metarl.evaluate import meta_test
from metarl.presets import make
from metarl.reports.belief_error import decoded_belief, exact_belief, found_by, total_variation
from metarl.reports.references.search import Search, grid_of, optimal_search
from metarl.rollout import rollout
from metarl.runs.folder import load_experiment
from metarl.runs.process import errors_in_one_sentence, prepare_process
from metarl.runs.snapshot import load_progress
from metarl.seeds import stream

STEPS = (0, 2, 5, 10, 15, 20, 30, 45, 60)  # of a trial, after which the belief is compared


@dataclass(frozen=True)
class Options:
    learners: str = "varibad,rl2"
    """Whose presets ``tuned`` are trained, with commas between."""
    seeds: str = "0,1,2"
    """Seeds of the runs, with commas between."""
    iterations: int = 400
    """Meta-updates of a run, of 12,000 environment steps each."""
    trials: int = 50
    """Trials of each goal that are tested."""
    runs: str = "runs/varibad_grid_navi"
    """Folder of the runs."""
    out: str = "experiments/results/varibad_grid_navi.csv"
    """Where the numbers go."""

    def __post_init__(self) -> None:
        require(self, "iterations", "trials", at_least=1)


def main() -> None:
    with errors_in_one_sentence():
        options: Options = parse(Options, None, description=__doc__)
        prepare_process(1)
        report(options, Console(width=150))


def report(options: Options, console: Console) -> None:
    rows: list[dict[str, Any]] = []
    for learner in options.learners.split(","):
        for seed in options.seeds.split(","):
            rows += tested(options, learner, int(seed), console)
    search = optimal_search(grid_of(make("grid_navi", "varibad").task), 4)
    assert search is not None
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    console.print(table(rows, search))


def tested(options: Options, learner: str, seed: int, console: Console) -> list[dict[str, Any]]:
    """The rows of one run: returns by episode, and distances of the belief by step."""
    folder = Path(options.runs) / f"{learner}_seed{seed}"
    if not folder.exists():
        experiment = replace(make("grid_navi", learner, "tuned"), seed=seed, iterations=options.iterations)
        metarl.fit(replace(experiment, num_threads=1), folder)
    experiment = load_experiment(folder)
    progress = load_progress(experiment, folder, console.print)
    state, goals = progress.learner_state, experiment.task.goals()
    env = experiment.task.make(len(goals), options.trials, seed=0)
    found = []
    about = {"learner": learner, "seed": seed, "iterations": progress.iteration, "env_steps": progress.env_steps}
    for greedy in (False, True):
        test = meta_test(experiment.learner, state, env, goals, episodes=4, greedy=greedy, seed=seed)
        actions = "greedy" if greedy else "sampled"
        means = test.returns.double().mean((0, 2)).tolist()
        found += [about | {"measure": f"return, {actions}", "at": k + 1, "value": x} for k, x in enumerate(means)]
    if isinstance(experiment.learner, VariBAD) and experiment.learner.see_belief:
        env.set_tasks(goals)
        actor, generator = experiment.learner.actor(state, len(goals)), stream(seed, "belief")
        batch, _ = rollout(env, experiment.learner.act, actor, 4, generator, trials=True)
        grid, model = grid_of(experiment.task), experiment.learner.belief
        decoded = decoded_belief(model, state.belief, grid, batch, generator)
        distance = total_variation(decoded, exact_belief(grid, batch))
        open_ = ~found_by(grid, batch)
        means = {"total variation": distance.mean(0), "goal found": 1 - open_.double().mean(0)}
        means["total variation before it is found"] = (distance * open_).sum(0) / open_.sum(0)
        found += [
            about | {"measure": name, "at": step, "value": x[step].item()}
            for name, x in means.items()
            for step in STEPS
        ]
    return found


def table(rows: list[dict[str, Any]], search: Search) -> Table:
    """Means over seeds with the lowest and the highest."""
    shown = Table(title="GridNavi: mean return by episode, belief by steps of a trial; mean [lowest, highest seed]")
    for name in ("learner", "measure", "at", "value", "Bayes-optimal", "share of it"):
        shown.add_column(name)
    groups: dict[tuple[str, str, int], list[float]] = {}
    for row in rows:
        groups.setdefault((row["learner"], row["measure"], row["at"]), []).append(row["value"])
    for (learner, measure, at), values in groups.items():
        mean = sum(values) / len(values)
        cells = [learner, measure, str(at), f"{mean:.3f} [{min(values):.3f}, {max(values):.3f}]"]
        if measure.startswith("return"):
            best = float(search.returns[at - 1])
            cells += [f"{best:.3f}", f"{mean / best:.1%}"]
        shown.add_row(*cells)
    return shown


if __name__ == "__main__":
    main()
