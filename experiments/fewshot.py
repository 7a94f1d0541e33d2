"""Supervised few-shot learning in one table: a sine wave from 10 examples, held-out digits from 1 and from 5 a class.

python experiments/fewshot.py [--jobs 2] [--seeds 0 1] [--only 'digits*'] [--share 1.0] [--dry-run]

A row is a run folder, which a second call reuses; ``--only`` picks rows by name, ``--share`` shortens all of them. Rows
of the results file that are not among those stay.
"""

import argparse
import csv
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from metarl import presets
from metarl.fewshot.evaluate import few_shot_test
from metarl.reports.examples import scores
from metarl.runs.folder import create_run, load_experiment
from metarl.runs.session import execute
from metarl.runs.snapshot import load_progress
from metarl.runs.supervised import FewShotExperiment
from metarl.runs.versions import recorded_commit

RESULTS = Path(__file__).parent / "results" / "fewshot.csv"
NUM_TASKS, STEPS = 600, 10
LEARNERS = (  # row, learner on the command line, preset
    ("MAML", "maml", "tuned"),
    ("FOMAML", "maml", "fomaml"),
    ("Meta-SGD", "maml", "meta_sgd"),
    ("ANIL", "maml", "anil"),
    ("Reptile", "reptile", "tuned"),
    ("Prototypical Networks", "prototypical", "tuned"),
    ("Meta Networks", "meta_networks", "tuned"),
    ("fine-tuned", "fine_tuned", "tuned"),
    ("nearest neighbour", "nearest", "raw"),
)
UPDATES = {"sinusoid": 1500, "digits": 400}
LONGER = {"sinusoid_MAML": 5000, "sinusoid_fine-tuned": 5000, "sinusoid_Meta Networks": 300}
OMNIGLOT = {  # 5 ways, 1 and 5 shots: another data set, with more classes to learn from and a convolutional network
    "MAML": ("98.7", "99.9"),  # Finn et al. 2017, table 1
    "Meta-SGD": ("99.5", "99.9"),  # Li et al. 2017, table 2
    "Reptile": ("95.4", "98.9"),  # Nichol et al. 2018, table 2, not transductive
    "Prototypical Networks": ("98.8", "99.7"),  # Snell et al. 2017, table 1
    "Meta Networks": ("98.95", ""),  # Munkhdalai & Yu 2017, table 1
}


def experiments(seed: int, share: float) -> Iterator[tuple[str, FewShotExperiment]]:
    """Every row by name: task, shots and learner."""
    for task, shots, ending in (("sinusoid", 10, ""), ("digits", 1, ""), ("digits", 5, "_k5")):
        for label, learner, preset in LEARNERS:
            if task == "sinusoid" and learner == "prototypical":
                continue  # it tells classes apart
            name = "maml2017" if (task, preset, learner) == ("sinusoid", "tuned", "maml") else preset
            experiment = presets.make(task, learner, f"{name}{ending}")
            updates = LONGER.get(f"{task}_{label}", UPDATES[task])
            updates = max(1, round(share * updates)) if learner != "nearest" else 1
            per_iteration = min(updates, 20)
            length = {"iterations": updates // per_iteration, "updates": per_iteration, "eval_interval": 0}
            yield (
                f"{task}_{shots}_{label}",
                replace(experiment, seed=seed, num_threads=1, checkpoint_interval=3, **length),
            )


def work_off(row: tuple[str, FewShotExperiment], runs: Path) -> dict[str, Any]:
    """Trains a row where its folder is not complete, and tests it."""
    name, experiment = row
    folder = runs / f"{name.replace(' ', '-')}-seed{experiment.seed}"
    if not folder.exists():
        create_run(experiment, runs, folder.name)
    elif load_experiment(folder) != experiment:
        raise SystemExit(f"{folder} is another experiment: choose another folder with --runs")
    if code := execute(experiment, folder, console=Console(quiet=True)):
        raise SystemExit(code)
    progress = load_progress(experiment, folder, print)
    learner = experiment.learner
    scales = [1.0] * STEPS if learner.adapt_steps else []
    found = few_shot_test(learner, progress.learner_state, experiment.task, num_tasks=NUM_TASKS, scales=scales, seed=0)
    task, shots, label = name.split("_")
    return {
        "task": task,
        "shots": shots,
        "learner": label,
        "measure": "mean squared error" if found.accuracy is None else "accuracy",
        "curve": " ".join(f"{e.value:.4f}" for e in scores(found)),
        "low": " ".join(f"{e.low:.4f}" for e in scores(found)),
        "high": " ".join(f"{e.high:.4f}" for e in scores(found)),
        "train_steps": learner.adapt_steps,
        "updates": experiment.updates * progress.iteration,
        "examples": progress.env_steps,
        "seed": experiment.seed,
        "commit": recorded_commit(folder),
    }


def table(rows: list[dict[str, Any]]) -> Table:
    """Sine waves after as many inner steps as in training, and after 10; digits after 10, where there are any."""
    found = Table(title=f"held-out tasks ({NUM_TASKS} a cell), after adaptation")
    for column in ("learner", "sine wave, 10 examples: MSE", "after 10 steps", "digits, 1 shot: %", "5 shots: %"):
        found.add_column(column)
    found.add_column("published, Omniglot (another data set)")
    by_name: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        by_name[row["task"], row["shots"], row["learner"]].append(row)
    for label, _, _ in LEARNERS:
        cells = []
        wave = by_name["sinusoid", "10", label]
        for step in (None, -1):
            cells.append(cell(wave, step, 1.0, 3) if wave else "")
        for shots in ("1", "5"):
            of_digits = by_name["digits", shots, label]
            cells.append(cell(of_digits, -1, 100.0, 1) if of_digits else "")
        found.add_row(label, *cells, ", ".join(filter(None, OMNIGLOT.get(label, ()))))
    found.caption = "one seed: [95 % interval over tasks]; several: their mean [lowest, highest]"
    return found


def cell(rows: list[dict[str, Any]], step: int | None, scale: float, digits: int) -> str:
    """Of one learner's seeds after an inner step (None: as many as in training)."""
    values, lows, highs = ([at_step(row, key, step, scale) for row in rows] for key in ("curve", "low", "high"))
    low, high = (lows[0], highs[0]) if len(rows) == 1 else (min(values), max(values))
    return f"{sum(values) / len(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def at_step(row: dict[str, Any], key: str, step: int | None, scale: float) -> float:
    numbers = [scale * float(x) for x in str(row[key]).split()]
    return numbers[min(int(row["train_steps"]), len(numbers) - 1) if step is None else step]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="rows at a time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the meta-updates of every row")
    parser.add_argument("--only", default="*", help="names of rows, with * and ?")
    parser.add_argument("--runs", type=Path, default=Path("runs/fewshot"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--dry-run", action="store_true", help="name the rows, and stop")
    options = parser.parse_args()
    every = [(seed, row) for seed in options.seeds for row in experiments(seed, options.share)]
    rows = [(seed, row) for seed, row in every if fnmatch(row[0], options.only)]
    if options.dry_run:
        for _, (name, experiment) in rows:
            print(f"{name}: {experiment.updates * experiment.iterations} meta-updates of {experiment.num_tasks} tasks")
        return
    options.runs.mkdir(parents=True, exist_ok=True)
    found: list[dict[str, Any]] = []
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
        for future in as_completed([pool.submit(work_off, row, options.runs) for _, row in rows]):
            row = future.result()
            found.append(row)
            print(f"{row['task']} {row['shots']} {row['learner']}: {row['measure']} {row['curve']}", flush=True)
            write(found, options.results)
    Console(width=160).print(table(found))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """What is done so far, in place of the same rows or beside others."""
    known: list[dict[str, Any]] = []
    if path.exists():
        with open(path, newline="") as file:
            known = list(csv.DictReader(file))
    merged = {identity(row): row for row in [*known, *rows]}
    labels = [label for label, _, _ in LEARNERS]
    order = sorted(merged.values(), key=lambda row: (*position(row, labels), int(row["seed"])))
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(order)


def identity(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[key]) for key in ("task", "shots", "learner", "seed"))


def position(row: dict[str, Any], labels: list[str]) -> tuple[Any, ...]:
    return row["task"] != "sinusoid", int(row["shots"]), labels.index(row["learner"])


if __name__ == "__main__":
    main()
