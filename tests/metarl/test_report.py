"""``metarl report`` and ``metarl watch`` on written run folders: what is grouped, left out, and said."""

import csv
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from metarl.algorithms.maml import MAML
from metarl.algorithms.rl2 import RL2
from metarl.cli.watch import watch
from metarl.envs.metaworld import ML10
from metarl.envs.registry import find_preset
from metarl.envs.small.navigation import Navigation
from metarl.reports.beside import published_lines, read_beside
from metarl.reports.curves import smoothed
from metarl.reports.figures import learning_curves
from metarl.reports.gathering import read
from metarl.reports.published import PUBLISHED
from metarl.reports.report import improvements, normalized, write_report
from metarl.runs.experiment import Experiment
from metarl.runs.folder import create_run
from metarl.runs.status import status_of
from metarl.types import remembers

BASE = Experiment(task=Navigation(), learner=MAML(), preset="maml2017", iterations=3)
VELOCITY = replace(BASE, task=find_preset("half_cheetah_vel"))
TASKS = 4


def evaluated(root: Path, name: str, experiment: Experiment, mean: float, **protocol: Any) -> Path:
    """A run folder whose policy earns ``mean`` + 10 x seed + the number of the task after its last step."""
    run = create_run(experiment, root, name)
    own, gradient = type(experiment.learner).__name__, not remembers(experiment.learner)
    scores = mean + 10.0 * experiment.seed + np.arange(TASKS)
    returns = np.stack([np.zeros(TASKS), scores], axis=1)[:, :, None]

    def row(returns: np.ndarray) -> dict[str, Any]:
        return {"returns": returns.tolist(), "solved_at_end": (returns > mean + 10).astype(int).tolist()}

    record = {
        "protocol": {
            "algorithm": own,
            "num_tasks": TASKS,
            "steps": ["before", "1 step"] if gradient else ["episode 1", "episode 2"],
            "step_size_scales": [1.0] if gradient else [],
            "checkpoint": "last",
            "iterations": 3,
            "iterations_asked": 3,
            "env_steps": 3000,
            "complete": True,
            **protocol,
        },
        **row(returns),
        "comparisons": {
            f"{own}, greedy": row(returns),
            "untrained": row(0 * returns),
            "untrained, greedy": row(0 * returns),
        },
        "labels": experiment.task.labels(experiment.task.published_tasks(TASKS))
        if experiment.task.name == "ml10"
        else [],
        "published": None,
    }
    (run / "evaluation.json").write_text(json.dumps(record))
    return run


def reported(root: Path, *runs: Path, **options: Any) -> tuple[list[Any], str]:
    console = Console(file=io.StringIO(), width=250)
    groups = write_report(list(runs), root / "report", console, **({"measure": "return"} | options))
    return groups, console.file.getvalue()  # type: ignore[attr-defined]


def test_runs_are_grouped_over_seeds_and_the_numbers_are_right_by_hand(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path, f"a{seed}", replace(BASE, seed=seed), 5.0) for seed in (0, 1)]
    other = replace(BASE, learner=MAML(inner_lr=0.5))
    runs += [evaluated(tmp_path, f"b{seed}", replace(other, seed=seed), -5.0) for seed in (0, 1)]
    groups, said = reported(tmp_path, *runs)
    assert [(group.name, len(group.runs)) for group in groups] == [
        ("MAML TRPO, learner.inner_lr 0.1", 2),
        ("MAML TRPO, learner.inner_lr 0.5", 2),
    ]
    assert groups[0].scores.tolist() == [[5, 6, 7, 8], [15, 16, 17, 18]]
    # means of the two runs are 6.5 and 16.5; the middle half of all is 7, 8, 15, 16
    assert "11.5 [6.5, 16.5]" in said
    assert "11.5 [6.5, 16.5] │ 3000 │ return after 1 step" in " ".join(said.split())
    ours = next(e for x, y, e in improvements(groups) if "0.1" in x.name)
    assert ours.value == pytest.approx(0.75 + 0.25 * 0.5)  # 5 and 15 against -5 and 5: 3 wins and a tie
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {"report.md", "report.csv", "report.tex", "profiles.png"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report" / "report.csv").read_text())))
    found = {(row["learner"][-3:], row["statistic"], row["of"]): row["value"] for row in rows}
    assert float(found["0.1", "mean", "all"]) == 11.5
    assert float(found["0.1", "mean", "seed 1"]) == 16.5
    assert float(found["0.1", "mean", "held-out task 2"]) == 12.0
    assert (
        "| navigation (maml2017) | MAML TRPO, learner.inner_lr 0.1 | 2 | 4 |"
        in (tmp_path / "report" / "report.md").read_text()
    )


def test_what_cannot_be_compared_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path, f"a{seed}", replace(BASE, seed=seed), 5.0) for seed in (0, 1)]
    runs += [
        evaluated(tmp_path, "twin", BASE, 5.0),
        evaluated(tmp_path, "otherwise", replace(BASE, seed=2), 5.0, num_episodes=7),
        evaluated(tmp_path, "unfinished", replace(BASE, seed=3), 5.0, complete=False, iterations_of_run=1),
        create_run(replace(BASE, seed=4), tmp_path, "untested"),
        evaluated(tmp_path, "broken", replace(BASE, seed=5), 5.0),
        tmp_path / "nowhere",
    ]
    (tmp_path / "broken" / "evaluation.json").write_text('{"protocol": [')
    groups, said = reported(tmp_path, *runs)
    assert [len(group.runs) for group in groups] == [2]
    left_out = [line for line in said.splitlines() if line.startswith("left out: ")]
    assert len(left_out) == 6
    for what in (
        "seed of",
        "another protocol",
        "after 1 of 3 iterations",
        "metarl evaluate",
        "no evaluation that",
        "nowhere",
    ):
        assert sum(what in line for line in left_out) == 1, what
    with pytest.raises(ValueError, match=r"untested has no evaluation.json: metarl evaluate"):
        reported(tmp_path, tmp_path / "untested")


@pytest.mark.parametrize("damage", ["[]", '{"protocol": 3}', '{"protocol": {"iterations": 3, "iterations_asked": 3}}'])
def test_fault_a_damaged_evaluation_is_one_sentence(damage: str, tmp_path: Path) -> None:
    run = evaluated(tmp_path, "a", BASE, 5.0)
    (run / "evaluation.json").write_text(damage)
    with pytest.raises(ValueError, match="is no evaluation that can be read"):
        read(run, measure="auto", step=None)


def test_success_counts_where_the_task_defines_it_and_steps_can_be_chosen(tmp_path: Path) -> None:
    run = evaluated(tmp_path, "a", replace(BASE, seed=1), 5.0)
    found = read(run, measure="auto", step=None)
    assert (found.measure, found.after.tolist()) == ("success", [0, 1, 1, 1])
    assert read(run, measure="return", step=0).after.tolist() == [0, 0, 0, 0]
    with pytest.raises(ValueError, match=r"step is 2: .* tested up to step 1"):
        read(run, measure="return", step=2)
    with pytest.raises(ValueError, match="does not define success"):
        read(evaluated(tmp_path, "b", VELOCITY, 5.0), measure="success", step=None)
    memory = replace(BASE, learner=RL2(), num_envs=10, episodes=20)
    trial = evaluated(tmp_path, "c", memory, 5.0)
    assert read(trial, measure="return", step=None).after.tolist() == [5, 6, 7, 8]  # the sum over episodes


def test_benchmarks_have_a_table_by_kind_and_learners_one_over_tasks(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path, "m", replace(BASE, task=ML10()), 5.0)]
    runs += [evaluated(tmp_path, f"n{seed}", replace(BASE, seed=seed), 5.0) for seed in (0, 1)]
    groups, _ = reported(tmp_path, tmp_path)
    said = (tmp_path / "report" / "report.md").read_text()
    assert "by kind of task, return after 1 step" in said
    assert "drawer-open-v3" in said
    assert "Over task distributions, normalized" in said
    (strata,) = normalized(groups).values()
    assert [scores.tolist() for scores in strata] == [[[1.0]], [[6.5 / 11.5], [16.5 / 11.5]]]
    assert set(runs) == {one.run for group in groups for one in group.runs}


def recorded(run: Path, values: dict[int, float], tag: str = "meta_train/return_post") -> Path:
    rows = [f"{k},{steps},{value},1000" for k, (steps, value) in enumerate(values.items())]
    (run / "progress.csv").write_text("\n".join([f"iteration,env_steps,{tag},time/env_steps_per_second", *rows]) + "\n")
    return run


def test_smoothing_averages_the_points_of_the_last_env_steps() -> None:
    curve = (np.array([10.0, 20.0, 30.0, 60.0]), np.array([1.0, 3.0, 5.0, 9.0]))
    assert smoothed(curve, 20)[1].tolist() == [1, 2, 4, 9]
    assert smoothed(curve, 1)[1].tolist() == [1, 3, 5, 9]


def test_a_plot_says_its_band_and_smoothing_and_what_stands_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    runs = [recorded(create_run(replace(BASE, seed=k), tmp_path, f"r{k}"), {10: k, 20: 3.0 * k}) for k in range(3)]
    other = tmp_path / "other.csv"
    other.write_text("label,env_steps,value\ncurve,10,1\ncurve,20,2\nend,,7\n")
    learning_curves(
        runs, tmp_path / "c.png", tags=["meta_train/return_post"], interval=True, smooth=5, published=True, beside=other
    )
    (axes,) = drawn[0].axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels[0] == "MAML TRPO, mean of 3 runs, 95 % interval of the mean"
    assert "MAML, end point of Finn et al. 2017, after 1 step, test tasks" in labels
    assert {"curve", "end"} < set(labels)
    assert axes.get_ylabel() == "meta_train/return_post\nmean of the last 5 env steps"
    (line,) = (line for line in published_lines(BASE, "meta_test/return_step_2") if line.label.startswith("MAML"))
    assert line.values == (PUBLISHED["navigation", "maml2017"].returns["MAML"][2],)
    assert published_lines(BASE, "train/kl") == published_lines(replace(BASE, task=Navigation(horizon=7)), "x") == []


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        "label,env_steps,value\n",
        "label,env_steps,value\nx,1,2\nx,,3\n",
        "label,env_steps,value\nx,1,much\n",
    ],
)
def test_a_file_of_curves_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=r"beside is .*x\.csv"):
        read_beside(tmp_path / "x.csv")


def test_watching_is_a_table_on_a_terminal_and_lines_elsewhere_until_all_are_over(tmp_path: Path) -> None:
    waiting = create_run(BASE, tmp_path, "waiting")
    done = recorded(create_run(replace(BASE, seed=1), tmp_path, "done"), {1000: 1.0, 2000: 2.0, 3000: 3.5})
    running = recorded(create_run(replace(BASE, seed=2), tmp_path, "running"), {1000: 1.0, 2000: 2.25})
    assert (status_of(waiting).state, status_of(done).state) == ("not begun", "finished")
    found = status_of(running)
    assert found.sentence() == "running: runs, 2 of 3 iterations, return 2.2 after adaptation, 1,000 steps/s, 1 s left"
    changed = (running / "progress.csv").stat().st_mtime
    assert status_of(running, now=changed + 600).state == "silent for 10 min"
    looks: list[float] = []

    def progress(seconds: float) -> None:
        looks.append(seconds)
        recorded(waiting if len(looks) == 1 else running, {1000: 1.0, 2000: 2.0, 3000: 9.5 + len(looks)})
        os.utime(running / "progress.csv", (changed + len(looks),) * 2)

    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=120, force_terminal=terminal)
        watch([tmp_path], console, wait=progress)
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert "3.5 after adaptation" in text
        assert ("3 of 3 are over" in text) == terminal
        assert ("done: finished, 3 of 3 iterations, return 3.5" in text) != terminal
    assert looks == [2.0, 2.0]  # the second time all were over at once


def test_watching_survives_what_is_no_run_and_what_stops_early(tmp_path: Path) -> None:
    early = create_run(replace(BASE, validation_interval=1, patience=1), tmp_path, "early")
    assert status_of(recorded(early, {10: 2.0, 20: 1.0}, "validation/score")).state == "stopped early"
    (broken := create_run(replace(BASE, seed=1), tmp_path, "broken")).joinpath("config.json").write_text("[]")
    assert status_of(broken).state == "config.json is damaged"
    assert "cannot be read" in status_of(tmp_path / "nowhere").state
    console = Console(file=io.StringIO(), width=120)
    watch([early, broken], console)  # ends
    assert "broken: config.json is damaged" in console.file.getvalue()  # type: ignore[attr-defined]
